"""A person's own pictures of digits: opened, segmented and normalised as MNIST's."""
