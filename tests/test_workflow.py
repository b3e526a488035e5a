"""The workflow tests what the README promises, by the README's own commands."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parent.parent
WORKFLOW = yaml.safe_load((PROJECT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
MATRIX = WORKFLOW["jobs"]["default"]["strategy"]["matrix"]


def commands(job: str) -> list[str]:
    return [step["run"] for step in WORKFLOW["jobs"][job]["steps"] if "run" in step]


def test_its_commands_are_those_of_the_readme_and_of_the_script_that_runs_everything() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert commands("default") == re.findall(r"^pip install .+ && pytest$", readme, re.MULTILINE)
    assert commands("everything") == [".ci/run"]
    assert (PROJECT / ".ci/run").is_file()
    assert WORKFLOW["defaults"]["run"]["shell"] == "bash", "the quotes of the commands are a POSIX shell's"


def test_it_covers_every_python_from_the_oldest_that_can_be_installed_and_every_system() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = int(project["requires-python"].removeprefix(">=3."))
    assert MATRIX["python"] == [f"3.{minor}" for minor in range(oldest, oldest + len(MATRIX["python"]))]
    assert MATRIX["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]


@pytest.mark.parametrize("job", WORKFLOW["jobs"])
def test_every_job_ends_by_itself_and_may_only_read(job: str) -> None:
    assert WORKFLOW["jobs"][job]["timeout-minutes"] <= 240
    assert WORKFLOW["permissions"] == {"contents": "read"}
