"""How a run is spread over hardware."""
