"""Image data sets: what they are, their files, and how they are sampled and loaded."""
