"""A page of one file that classifies drawings or pictures with a trained network."""
