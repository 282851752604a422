"""Options, and what is built from them."""
