"""Several runs: seeds, the comparison of recipes, and the search for hyperparameters."""
