"""A shell completes commands and flags."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command

BASH = shutil.which("bash") if sys.platform != "win32" else None
COMPLETE = """\
source "$1"; shift
COMP_WORDS=(mnist-lit "$@"); COMP_CWORD=$#
eval "$(complete -p mnist-lit | sed -E 's/.*-F ([^ ]+).*/\\1/')"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(not BASH, reason="needs bash")
def test_bash_completes_commands_flags_and_files(command: Command, tmp_path: Path) -> None:
    code, out, err = command("--print_completion", "bash")
    assert (code, err) == (0, "")
    (script := tmp_path / "script").write_text(out, encoding="utf-8")
    (tmp_path / "some.yaml").touch()

    def complete(*words: str) -> list[str]:
        argv = [str(BASH), "-c", COMPLETE, "bash", str(script), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()

    assert complete("pre") == ["predict"]
    assert complete("fit", "--model.cha") == ["--model.channels"]
    assert complete("test", "--data.batch") == ["--data.batch_size"]
    assert complete("test", "--seed") == []
    assert complete("compare", "--o") == ["--output"]
    assert complete("fit", "--trainer.limit_t") == ["--trainer.limit_train_batches", "--trainer.limit_test_batches"]
    assert complete("fit", "--config", "some") == ["some.yaml"]
    assert complete("compare", "some") == complete("predict", "--images", "other", "some") == ["some.yaml"]
    assert complete("fit", "some") == []


@pytest.mark.parametrize("argv", [[], ["dos"], ["bash", "zsh"]])
def test_another_shell_is_refused(argv: list[str], command: Command) -> None:
    code, out, err = command("--print_completion", *argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: --print_completion: give one of bash, zsh, tcsh")


def test_without_shtab_one_line_says_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, _, err = command("--print_completion", "bash")
    assert code == 2
    assert err == "error: --print_completion needs shtab: pip install shtab\n"
