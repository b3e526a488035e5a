"""Usage errors are one line, with a suggestion."""

import tomllib
from importlib.metadata import version

from conftest import TRAIN

from mnist_lit.system.errors import explain_parser_error, suggest


def test_suggest_returns_the_closest_match_if_any() -> None:
    assert suggest("data.batch_sze", ["data.batch_size", "data.val_size"], prefix="--") == (
        ": did you mean --data.batch_size?"
    )
    assert suggest("xyz", ["fit", "test"]) == ""


def test_unknown_messages_are_passed_on() -> None:
    assert explain_parser_error("another message", [], []) == "another message"
    assert explain_parser_error('Parser key "seed": another message', [], []) == "--seed: another message"


def test_jsonargparse_is_pinned_to_one_major_version() -> None:
    project = tomllib.loads((TRAIN.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [requirement] = [line for line in project["dependencies"] if line.startswith("jsonargparse")]
    installed = version("jsonargparse").partition(".")[0]
    assert requirement.endswith(f",<{int(installed) + 1}")
