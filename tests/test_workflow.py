"""The GitHub workflow runs the commands of the README on the supported systems and Python versions."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import posix

from mnist_lit import __version__

PROJECT = Path(__file__).parent.parent
FOLDER = PROJECT / ".github/workflows"
WORKFLOW = yaml.safe_load((FOLDER / "tests.yml").read_text(encoding="utf-8"))
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


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yml")), ids=lambda path: path.stem)
def test_actions_are_given_by_digest_or_with_the_reason_why_not(path: Path) -> None:
    for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
        assert re.search(r"@([0-9a-f]{40} # v\d|\S+ # no digest was at hand$)", line)
    bot = yaml.safe_load((PROJECT / ".github/dependabot.yml").read_text(encoding="utf-8"))
    assert bot["updates"][0]["package-ecosystem"] == "github-actions"


@posix
def test_a_release_checks_the_tag_and_only_its_last_job_may_publish() -> None:
    release = yaml.safe_load((FOLDER / "release.yml").read_text(encoding="utf-8"))
    assert release["permissions"] == {"contents": "read"}
    build, publish = release["jobs"]["build"], release["jobs"]["publish"]
    assert (publish["needs"], publish["permissions"]) == ("build", {"id-token": "write"})
    steps = [step["run"] for step in build["steps"] if "run" in step]
    version = re.search(r"sed -n '(.*)' mnist_lit", steps[0])
    assert version
    command = ["sed", "-n", version[1], PROJECT / "mnist_lit/__init__.py"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{__version__}\n"
