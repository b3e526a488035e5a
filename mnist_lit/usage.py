"""Clear words for what is wrong with a command line."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__all__ = ["UsageError", "explain", "nearest", "printable"]


class UsageError(Exception):
    """A flag, value or config file that cannot be used."""


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a question after the nearest known word, if there is one.

    >>> nearest("tset", ["fit", "test"])
    ': did you mean test?'
    """
    found = get_close_matches(word, list(known), n=1)
    return f": did you mean {prefix}{found[0]}?" if found else ""


def printable(text: str) -> str:
    """Return a text with a question mark for what would not print, or would change how the terminal prints."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def explain(message: str, configs: Sequence[str], known: Iterable[str]) -> str:
    """Shorten jsonargparse's message about an error to what was given where, and what is accepted there.

    Args:
        message: jsonargparse's, of several lines.
        configs: the config files given; jsonargparse does not say in which of them the error is.
        known: the flags that there are, without their dashes.
    """
    files = " or ".join(configs) or "config"
    if unknown := re.match(r"unrecognized arguments: (--)?([^\s=]+)", message):
        return f"no flag {unknown[1] or ''}{unknown[2]}{nearest(unknown[2], known, prefix='--')}"
    if unknown := re.match(r"(?:Group '(.+)' does not accept option|Option) '(.+?)'", message):
        key = ".".join(filter(None, unknown.groups()))
        return f"{files}: no setting {key}{nearest(key, known)}"
    if re.match("Problems parsing config|Unexpected config", message):
        return f"{files}: {message}"
    if at := re.match(r'Parser key "(.+?)":', message):
        return f"--{at[1]}: {_reason(message) or message.removeprefix(at[0]).strip()}"
    return _problem(message) or message


def _problem(message: str) -> str | None:
    """Return what is wrong with a class, where the message is about one."""
    problem = re.search(r"Problem with given class_path '(.+)':\s+(.+)", message)
    return f"{problem[1]}: {problem[2]}" if problem else None


def _reason(message: str) -> str | None:
    """Return what is wrong with a value, where the message has one of the known forms."""
    if reason := re.search(r"Not of type \w+: (.+)", message):
        return reason[1]
    if problem := _problem(message):
        return problem
    if given := re.search(r"(?:Got|Given) value: (.+)", message):
        expected = re.findall(r"Expected an? (.+?)(?:\.? Got value|: |$)", message, re.MULTILINE)
        return f"expected {_types(expected)}, got {given[1]}"
    return None


def _types(expected: Iterable[str]) -> str:
    """Turn `<class 'int'>` and `typing.Literal['a', 'b']` into `int` and `'a', 'b'`."""
    names = [re.sub(r"<class '(?:.*\.)?(\w+)'>|typing\.Literal\[(.*)\]", r"\1\2", name) for name in expected]
    words = {"NoneType": "null", "Sequence": "a list as [1,2]"}
    return " or ".join(dict.fromkeys(words.get(name, name) for name in names))
