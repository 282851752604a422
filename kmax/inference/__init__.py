"""From an image to logits and on to results."""
