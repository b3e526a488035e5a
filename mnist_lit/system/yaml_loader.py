"""A YAML loader for plain values that rejects duplicate keys and bounds the size, aliases expanded."""

import re
from collections.abc import Mapping
from math import inf
from typing import Any

import yaml
from jsonargparse import get_loader

from mnist_lit.system.files import expand_home

__all__ = ["flatten", "load"]

MAX_CHARACTERS, MAX_VALUES = 100_000, 1_000
"""Limits of a document. A run's config has some 250 values, and jsonargparse takes quadratic time in their number."""

VARIABLE = re.compile(r"\$\{|(^|/)\$\w")
MISREAD = {
    r"^[-+]?0[0-7_]+$": "is octal in YAML: write a number without leading zeros",
    r"^[-+]?[1-9]\d*(:[0-5]?\d)+$": "is a number of seconds in YAML: write a time in quotes, 'DD:HH:MM:SS'",
    r"^None$": "is a text in YAML: write null",
    VARIABLE.pattern: "is a variable, which a config does not have: write the value",
}
"""Patterns of values that people take for something else than YAML does, and what to write instead."""
_load = get_loader("yaml")  # jsonargparse's own, which parses 1e-3 as a number


def load(text: str) -> Any:
    """Return the value of a YAML document.

    Raises:
        YAMLError: if it is not valid, has a duplicate key, or is too large.
    """
    try:
        if len(text) > MAX_CHARACTERS:
            raise yaml.YAMLError(f"more than {MAX_CHARACTERS:,} characters")
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if node and _expanded_size(node, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES:,} values, aliases expanded")
        return expand_home(_load(text))
    except yaml.MarkedYAMLError as error:
        raise yaml.YAMLError(str(error).replace(' in "<unicode string>",', "")) from error
    except (ValueError, TypeError, AttributeError) as error:  # PyYAML's, about `!!int x` and the like
        raise yaml.YAMLError(f"a value does not match its tag: {error}") from error
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their full names.

    >>> flatten({"seed": 1, "data": {"batch_size": 100}})
    {'seed': 1, 'data.batch_size': 100}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat


def _check_scalar(node: yaml.ScalarNode) -> None:
    """Refuse what people take for something else than YAML does."""
    problem = next((text for pattern, text in MISREAD.items() if re.search(pattern, node.value)), None)
    if problem and (not node.style or VARIABLE.search(node.value)):  # no quotes
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {node.value} {problem}")


def _expanded_size(node: yaml.Node, sizes: dict[yaml.Node, float]) -> float:
    """Return the number of nodes with each alias expanded; infinite for a recursive alias.

    A few lines of nested aliases may expand to billions of values (a "billion laughs" attack).
    """
    if node not in sizes:
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
        sizes[node] = inf  # until it is known: seen by an alias within its own anchor
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
                if key.value in keys:
                    raise yaml.MarkedYAMLError(problem=f"duplicate key {key.value}", problem_mark=key.start_mark)
                keys.add(key.value)
            children = [child for pair in children for child in pair]
        sizes[node] = 1 + sum(_expanded_size(child, sizes) for child in children)
    return sizes[node]
