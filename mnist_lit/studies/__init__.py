"""Several runs: seeds, the comparison of recipes, and the search for hyperparameters.

This folder is a room for what needs more than one run: `fit --seeds`, `compare` and `search`. It requires SciPy and,
for `search`, Optuna (the extra `search`). It imports the rest of the package, which imports it in one place only,
within the function `fit` of `mnist_lit/commands/fit.py`. To take the room away:
`rm -r mnist_lit/studies tests/studies docs/studies.md configs/search.yaml`
"""
