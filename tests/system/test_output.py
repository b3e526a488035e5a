"""Lines have no control characters, and no program ends since nobody reads them."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import SHORT, TRAIN, posix

from mnist_lit.system.output import say, set_up_logs


def test_lines_have_no_control_characters(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a file or a class may have some, which a terminal would obey."""
    say("\x1b[2Jphoto\nof.png: \x9b7, über", "next")
    assert capsys.readouterr().out == "?[2Jphoto?of.png: ?7, über\nnext\n"
    handler = logging.StreamHandler(sys.stdout)
    monkeypatch.setattr(logging, "lastResort", handler)
    set_up_logs()
    handler.emit(logging.makeLogRecord({"msg": "%s: left out", "args": ("a\x07\nb",)}))
    assert capsys.readouterr().out == "a??b: left out\n"


def test_an_error_of_writing_in_a_thread_is_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard's writer raises it again in the main thread; its traceback would hide the one line."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    set_up_logs()
    for error in (OSError(28, "No space left on device"), ValueError("another")):

        def fail(error: Exception = error) -> None:
            raise error

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        assert ("another" in capsys.readouterr().err) == isinstance(error, ValueError)


@posix
@pytest.mark.parametrize(
    "redirected",
    ["| head -n 1", *(pytest.param(end, marks=pytest.mark.slow) for end in ("2>&1 | head -n 1", ">&- 2>&-"))],
)
def test_a_training_whose_output_nobody_reads_is_finished(redirected: str, data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(data_dir)
    flags = " ".join(f"'{flag}'" for flag in SHORT)
    command = f"set -o pipefail; {sys.executable} {TRAIN} fit {flags} {redirected}"
    run = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert (run.returncode, run.stderr) == (0, b"")
    assert (tmp_path / "runs/baseline/version_0/results.json").is_file()
