"""The commands of the command line, and what they share: flags, and starting from a checkpoint."""
