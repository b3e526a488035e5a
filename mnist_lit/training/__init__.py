"""The Trainer of a run: its callbacks, loggers, progress and TensorBoard."""
