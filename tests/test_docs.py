"""The documents agree with each other, and their links lead somewhere."""

import re
from pathlib import Path

import pytest
from conftest import TRAIN

PROJECT = TRAIN.parent
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), PROJECT / "tests/benchmarks/README.md"])


def blocks(path: Path) -> list[str]:
    """Return the code blocks of a document, without the comments behind commands."""
    found = re.findall(r"```\w*\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    return [re.sub(r" +# .*", "", block) for block in found]


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_links_within_the_project_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_korean_readme_has_commands_and_output_of_the_english_one() -> None:
    english, korean = blocks(PROJECT / "README.md"), blocks(PROJECT / "README.ko.md")
    assert len(korean) >= 3
    for block in korean:
        assert block in english


def test_the_korean_readme_has_the_results_of_the_english_one() -> None:
    tables = [
        re.findall(r"^\|.*", (PROJECT / name).read_text(encoding="utf-8"), re.MULTILINE)
        for name in ("README.md", "README.ko.md")
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) > 5
