"""The documents agree with each other, and their links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import TRAIN

from mnist_lit.commands import COMMANDS, has_room
from mnist_lit.commands.flags import build_parser, parse

PROJECT = TRAIN.parent
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), PROJECT / "tests/benchmarks/README.md"])


def read(path: Path) -> str:
    """Return the text of a document, without the parts about rooms that have been taken away."""

    def keep(part: re.Match[str]) -> str:
        return part[0] if has_room(part[1]) else ""

    text = path.read_text(encoding="utf-8")
    return re.sub(r"^<!-- (reader|studies) -->$.*?^<!-- end of \1 -->$", keep, text, flags=re.DOTALL | re.MULTILINE)


def blocks(path: Path) -> list[str]:
    """Return the code blocks of a document, without the comments behind commands."""
    found = re.findall(r"```\w*\n(.*?)```", read(path), re.DOTALL)
    return [re.sub(r" +# .*", "", block) for block in found]


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", read(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_links_within_the_project_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", read(path)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_a_picture_has_a_version_for_dark_screens(path: Path) -> None:
    for source, picture in re.findall(r'srcset="(.*?)"><img src="(.*?)"', read(path)):
        assert source == picture.replace(".png", "_dark.png")
        assert (path.parent / source).is_file()
        assert (path.parent / picture).is_file()
    assert not re.search(r"!\[.*\]\(.*\.png\)", read(path)), "a white picture on a dark screen"


def test_the_korean_readme_has_commands_and_output_of_the_english_one() -> None:
    english, korean = blocks(PROJECT / "README.md"), blocks(PROJECT / "README.ko.md")
    assert len(korean) >= 3
    for block in korean:
        assert block in english


def test_the_korean_readme_has_the_results_of_the_english_one() -> None:
    tables = [
        re.findall(r"<!-- recipes -->(.*?)<!-- end -->", (PROJECT / name).read_text(encoding="utf-8"), re.DOTALL)
        for name in ("README.md", "README.ko.md")
    ]
    assert tables[0] == tables[1]
    assert tables[0][0].count("\n|") > 5


LEFT_OUT = ("…", "COMMAND", "GradientNorm")
"""Parts of commands that are not complete, or are for code that a reader adds."""


def commands(path: Path) -> list[str]:
    """Return the command lines of the program in a document, without those in `LEFT_OUT`."""
    text = read(path).replace("\\\n", "")
    inline = re.findall(rf"`(?:(?:python train\.py|mnist-lit) )?((?:{'|'.join(COMMANDS)}) [^`]*)`", text)
    inline += re.findall(r"`(?:python train\.py|mnist-lit) ([a-z][^`]*)`", text)
    typed = re.findall(r"^(?:python train\.py|mnist-lit) (.*)", text, re.MULTILINE)
    found = {re.sub(r" +#.*", "", line.replace("\n", " ")).strip() for line in inline + typed}
    return sorted(line for line in found if line[0] != "-" and not any(part in line for part in LEFT_OUT))


@pytest.mark.parametrize(
    ("path", "line"),
    [(path, line) for path in DOCUMENTS if path.name != "CHANGELOG.md" for line in commands(path)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_documented_command_has_flags_that_exist(path: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    name, *argv = shlex.split(line)
    assert name in COMMANDS, path
    if name == "compare":
        from mnist_lit.studies import compare

        assert compare.parse_recipes(argv).recipes
    elif argv[-1:] in (["--config"], ["--images"], ["--seeds"]):  # the name of a way to use the command
        assert argv[-1].removeprefix("--") in build_parser(name).get_defaults()
    elif "--help" not in argv:
        assert parse(build_parser(name), argv)
