"""The GitHub workflow runs the commands of the README on the supported systems and Python versions."""

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


def test_commands_are_those_of_the_readme_and_the_ci_script() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert commands("default") == re.findall(r"^pip install .+ && pytest$", readme, re.MULTILINE)
    assert commands("everything") == [".ci/run"]
    assert (PROJECT / ".ci/run").is_file()
    assert WORKFLOW["defaults"]["run"]["shell"] == "bash", "the commands have quotes of a POSIX shell"


def test_matrix_has_all_supported_python_versions_and_systems() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = int(project["requires-python"].removeprefix(">=3."))
    assert MATRIX["python"] == [f"3.{minor}" for minor in range(oldest, oldest + len(MATRIX["python"]))]
    assert MATRIX["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]


@pytest.mark.parametrize("job", WORKFLOW["jobs"])
def test_jobs_have_a_timeout_and_read_only_permissions(job: str) -> None:
    assert WORKFLOW["jobs"][job]["timeout-minutes"] <= 240
    assert WORKFLOW["permissions"] == {"contents": "read"}
