"""The version is the same wherever it stands, and the forms for GitHub are valid."""

import re

import pytest
import yaml
from conftest import TRAIN

from mnist_lit import __version__

PROJECT = TRAIN.parent


def test_version_is_that_of_the_changelog_and_the_citation() -> None:
    (newest, *_) = re.findall(
        r"^## (\S+) – (\S+)", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert newest[0] == __version__
    assert newest[1] == "unreleased" or re.fullmatch(r"\d{4}-\d\d-\d\d", newest[1])
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert newest[1] == "unreleased" or str(citation["date-released"]) == newest[1]


@pytest.mark.parametrize("path", sorted((PROJECT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_issue_forms_have_what_github_needs(path: object) -> None:
    form = yaml.safe_load((PROJECT / str(path)).read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    for field in form["body"]:
        assert field["type"] in {"textarea", "input"}
        assert field["attributes"]["label"]
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
