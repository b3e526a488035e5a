"""Run the experiment: `python -m mnist_lit --help`."""

import sys

from mnist_lit.cli import main

if __name__ == "__main__":
    sys.exit(main())
