"""Foreign checkpoints, translated at the border by tables of names."""
