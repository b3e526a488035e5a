"""What has nothing to do with deep learning: files, signals, memory, errors."""
