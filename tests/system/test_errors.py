"""What is wrong is said in one line, with the nearest right word."""

import tomllib
from importlib.metadata import version

from conftest import TRAIN

from mnist_lit.system.errors import explain_parser_error, suggest


def test_the_nearest_word_is_offered_if_one_is_near() -> None:
    assert suggest("data.batch_sze", ["data.batch_size", "data.val_size"], prefix="--") == (
        ": did you mean --data.batch_size?"
    )
    assert suggest("xyz", ["fit", "test"]) == ""


def test_a_message_of_an_unknown_form_is_passed_on() -> None:
    assert explain_parser_error("the sky is falling", [], []) == "the sky is falling"
    assert explain_parser_error('Parser key "seed": the sky is falling', [], []) == "--seed: the sky is falling"


def test_jsonargparse_whose_messages_are_read_stays_within_one_major_version() -> None:
    project = tomllib.loads((TRAIN.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [requirement] = [line for line in project["dependencies"] if line.startswith("jsonargparse")]
    installed = version("jsonargparse").partition(".")[0]
    assert requirement.endswith(f",<{int(installed) + 1}")
