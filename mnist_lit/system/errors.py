"""Errors in a command line, told in one line."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__all__ = ["UsageError", "explain_parser_error", "printable", "suggest"]

SYNONYMS = {"lr": "learning_rate", "gpus": "devices", "epochs": "max_epochs", "seed_everything": "seed"}
"""Names that other programs have for a setting."""


class UsageError(Exception):
    """A flag, value or config file that cannot be used."""


def suggest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a question with the most similar known word, or "" if none is similar.

    >>> suggest("tset", ["fit", "test"])
    ': did you mean test?'
    """
    known, (group, _, name) = list(known), word.rpartition(".")
    names = {key.rpartition(".")[2]: key for key in known if key.startswith(f"{group}.") or not group}
    if not names and group.partition(".")[0] not in {key.partition(".")[0] for key in known}:  # which is misspelt
        name, names = word, {key: key for key in known}
    found = get_close_matches(SYNONYMS.get(name, name), names, n=1, cutoff=0.7)
    return f": did you mean {prefix}{names[found[0]]}?" if found else ""


def printable(text: str) -> str:
    """Return a text with a question mark for each character that is not printable, such as escape codes."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def explain_parser_error(message: str, configs: Sequence[str], known: Iterable[str]) -> str:
    """Shorten an error message of jsonargparse to what was given, where, and what is accepted there.

    Args:
        message: the message, of several lines.
        configs: the config files given; jsonargparse does not say in which of them the error is.
        known: names of all flags, without dashes.
    """
    files = " or ".join(configs) or "config"
    if unknown := re.match(r"unrecognized arguments: (--)?([^\s=]+)", message):
        hint = suggest(unknown[2], known, prefix="--") or ("" if unknown[1] else ": flags start with --")
        return f"no flag {unknown[1] or ''}{unknown[2]}{hint}"
    if unknown := re.match(r"(?:Group '(.+)' does not accept option|Option) '(.+?)'", message):
        key = ".".join(filter(None, unknown.groups()))
        return f"{files}: no setting {key}{suggest(key, known)}"
    if text := re.match("Unexpected config: (.*)", message):
        return f"{files}: expected settings, such as 'seed: 1', got {text[1]}"
    if message.startswith("Problems parsing config"):
        return f"{files}: {message.removeprefix('Problems parsing config: ')}"
    if at := re.match(r'Parser key "(.+?)":', message):
        return f"--{at[1]}: {_reason(message) or message.removeprefix(at[0]).strip()}"
    return _class_problem(message) or message


def _class_problem(message: str) -> str | None:
    if denied := re.search(r"Importing '(.+?)' is not allowed", message):
        return f"{denied[1]}: only classes in mnist_lit and lightning.pytorch can be named: put yours into mnist_lit"
    problem = re.search(r"Problem with given class_path '(.+)':\s+(.+)", message)
    return f"{problem[1]}: {problem[2]}" if problem else None


def _reason(message: str) -> str | None:
    """Return what is wrong with a value, or None for a message of unknown form."""
    if "Expected a string with form" in message:
        return "write a time in quotes, 'DD:HH:MM:SS'"
    if "expected string or bytes-like object, got 'bool'" in message:
        return "expected a text, got true or false: yes, no, on and off are these in YAML, write them in quotes"
    limits = "does not conform to restriction (.+)"  # such as `v>=0 and v<9`
    if reason := re.search(r"Not of type \w+: (.+)", message) or re.search(f"({limits})", message):
        return re.sub(limits, lambda found: f"must be {found[1].replace('v', '')}", reason[1])
    if problem := _class_problem(message):
        return problem
    if given := re.search(r"(?:Got|Given) value: (.+)", message):
        expected = re.findall(r"Expected an? (.+?)(?:\.? Got value|: |$)", message, re.MULTILINE)
        return f"expected {_type_names(expected)}, got {given[1]}"
    return None


def _type_names(expected: Iterable[str]) -> str:
    """Turn `<class 'int'>` and `typing.Literal['a', 'b']` into `int` and `'a', 'b'`."""
    names = [re.sub(r"<class '(?:.*\.)?(\w+)'>|typing\.Literal\[(.*)\]", r"\1\2", name) for name in expected]
    words = {"NoneType": "null", "Sequence": "a list as '[1,2]'"}
    return " or ".join(dict.fromkeys(words.get(name, name) for name in names))
