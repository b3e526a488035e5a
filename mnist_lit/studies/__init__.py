"""A room: several runs.

What it is for: `fit --seeds N`, runs that differ only in their seeds; `compare`, whether one of several recipes is
better; and `search`, for hyperparameters. Each run of a study is an ordinary run. The room imports the core.

What it needs: scipy and, for `search`, the extra `search`; for its tests, statsmodels. Its document is
`docs/studies.md`. To take it away, with the parts of the documents that are about it:

    rm -r mnist_lit/studies tests/studies docs/studies.md docs/recipes*.png configs/search.yaml
    perl -ni -e 'print unless /^<!-- studies/ .. /^<!-- end of studies/' *.md docs/*.md

The other commands and the tests work without it; the scripts in `tests/benchmarks` that measure recipes do not.
"""
