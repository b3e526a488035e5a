"""Rooms can be taken away: what is left works, and its tests pass."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import TRAIN, posix

from mnist_lit.commands import COMMANDS, describe_flags, has_room

PROJECT = TRAIN.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
ROOMS = [name for name in ("reader", "studies") if has_room(name)]


def door(room: str) -> str:
    return (PROJECT / "mnist_lit" / room / "__init__.py").read_text(encoding="utf-8")


def commands(room: str) -> list[str]:
    """Return the commands that take a room away."""
    return re.findall(r"^    ((?:rm|perl) .*)", door(room), re.MULTILINE)


@pytest.mark.parametrize("room", ROOMS)
def test_the_door_of_a_room_says_how_to_take_it_away(room: str) -> None:
    assert all(part in door(room) for part in ("What it is for: ", "What it needs: ", "To take it away"))
    assert len(commands(room)) == 2
    assert all(command in README for command in commands(room))
    assert f"mnist_lit/{room} tests/{room} docs/{room}.md" in commands(room)[0]


def test_help_has_no_marks_and_names_only_what_is_there() -> None:
    helps = "".join(describe_flags(command) for command in COMMANDS)
    assert "<!--" not in helps
    for room, words in {"reader": ["--several", ".html"], "studies": ["--seeds", "--trials"]}.items():
        assert all((word in helps) == has_room(room) for word in words)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("rooms", [*([room] for room in ROOMS), ROOMS], ids="-".join)
def test_the_tests_pass_without_rooms(tmp_path: Path, rooms: Sequence[str]) -> None:
    """Where all rooms are taken away, so are their parts of the documents, and the project gets another name."""
    copy = tmp_path / "copy"
    shutil.copytree(
        PROJECT, copy, ignore=lambda folder, names: NOT_COPIED & {*names} if Path(folder) == PROJECT else ()
    )
    package = copy / "mnist_lit"
    for room in rooms:
        run(commands(room)[0], copy)
    if len(rooms) > 1:
        for room in rooms:
            run(commands(room)[1], copy)
        run("git init -q && git add .", copy)
        for command in re.findall(r"^git .*", README, re.MULTILINE):
            run(command, copy)
        package = copy / "my_digits"
        assert not re.search("|".join(("mnist[_-]lit", *ROOMS)), (copy / "README.md").read_text(encoding="utf-8"))
    assert package.is_dir()
    lines = run(f"{sys.executable} train.py --help", copy).splitlines()
    assert ("compare" in "".join(lines)) == ("studies" not in rooms)
    assert " passed" in run(f"{sys.executable} -m pytest -q", copy)


NOT_COPIED = {".git", ".venv", "runs", "data"}


def run(command: str, folder: Path) -> str:
    """Run a command of the shell in a copy of the project, and expect that it succeeds."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    ended = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout[-5_000:]}{ended.stderr[-5_000:]}"
    return ended.stdout
