"""A room: a person's own pictures of digits.

What it is for: `predict --images` for networks of digits, `--several` for whole sheets of them, and the page to draw a
digit on, `export --output FILE.html`. Pictures are segmented, scaled and centred as MNIST's digits were, and what is
perhaps not a digit is marked. Where nothing was trained yet, the trained network of the package reads them. The room
imports the data sets and `calibration.py`, and nothing of Lightning.

What it needs: scipy; for its tests, playwright and Chromium. Its document is `docs/reader.md`, with the pictures
`docs/page*.png` and the page `docs/digits.html`, which `.github/workflows/pages.yml` publishes.

To take it away, with the parts of the documents that are about it:

    rm -r mnist_lit/reader tests/reader docs/reader.md docs/digits.html docs/page*.png .github/workflows/pages.yml
    perl -ni -e 'print unless /^<!-- reader/ .. /^<!-- end of reader/' *.md docs/*.md

The other commands and the tests work without it: `predict --images` then reads pictures for networks that were trained
on photographs only.
"""
