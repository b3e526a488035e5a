"""What a run leaves: its folder, checkpoints and results."""
