"""A page in one file that classifies drawings or pictures with a trained network."""
