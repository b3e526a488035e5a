"""What is around the Trainer: its callbacks, loggers, progress and TensorBoard."""
