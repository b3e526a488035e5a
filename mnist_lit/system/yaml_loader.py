"""Read YAML: plain values, each key of a mapping once, no larger than it is written."""

from math import inf
from typing import Any

import yaml
from jsonargparse import get_loader

__all__ = ["load"]

MOST_LETTERS, MOST_VALUES = 100_000, 1_000
"""Of a text: a run has some 250, and what jsonargparse does with them takes the square of their number."""

_load = get_loader("yaml")  # jsonargparse's own, which reads 1e-3 as a number


def load(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        YAMLError: if it is not valid, gives a key twice, or is too large.
    """
    try:
        if len(text) > MOST_LETTERS:
            raise yaml.YAMLError(f"more than {MOST_LETTERS:,} letters")
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if node and _size(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES:,} values, an alias counted as what it stands for")
        return _load(text)
    except (ValueError, TypeError, AttributeError) as error:  # PyYAML's, about `!!int x` and the like
        raise yaml.YAMLError(f"a value is not what its tag says: {error}") from error
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error


def _size(node: yaml.Node, sizes: dict[yaml.Node, float]) -> float:
    """Return how many nodes there are if each alias is replaced by what it stands for; infinitely many in a circle.

    Few lines of aliases of aliases may stand for billions of values, which whoever copies them would make.
    """
    if node not in sizes:
        sizes[node] = inf  # for an alias within what it stands for
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            parts = [part for pair in parts for part in pair]
        sizes[node] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[node]


def _check_keys(node: yaml.MappingNode) -> None:
    keys = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in keys:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            keys.add(key.value)
