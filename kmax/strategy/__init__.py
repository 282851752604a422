"""Hardware, clusters and signals."""
