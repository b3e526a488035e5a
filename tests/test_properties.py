"""Property-based tests: any input is accepted or rejected with an error in one line, in bounded time and memory.

By default each test has a few fixed examples. `EXAMPLES=30 pytest tests/test_properties.py` runs 30 times as many,
random ones.
"""

import json
import os
import signal
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import Mock
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
import torch
import yaml
from conftest import Command, posix, stock_trainer
from helpers.server import SHIPPED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.commands import has_room
from mnist_lit.commands.fit import Start
from mnist_lit.commands.flags import build_parser, instantiate
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.images import open_image
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run, new_run
from mnist_lit.training.trainer import build_trainer

pytestmark = posix  # for SIGALRM
TIMES = int(os.environ.get("EXAMPLES", "1"))
MAX_SECONDS = 20
"""For one input, on a slow machine."""
MAX_BYTES = 200_000_000
"""Allocated by Python, with NumPy's arrays, for one input."""

Property = Callable[[Callable[..., None]], Callable[..., None]]


def examples(number: int) -> Property:
    """Set the number of examples."""
    return settings(
        max_examples=number * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,  # see `limits`
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@contextmanager
def limits(*, memory: bool = True) -> Iterator[None]:
    """Fail if the context takes too long or too much memory."""

    def time_out(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, time_out)
    signal.alarm(MAX_SECONDS)
    if memory:  # tracing it takes three times as long
        tracemalloc.start()
    try:
        yield
    except TimeoutError:
        pytest.fail("timed out")
    finally:
        left = signal.alarm(0)
        _, peak = tracemalloc.get_traced_memory()  # 0 if it is not traced
        tracemalloc.stop()
        signal.signal(signal.SIGALRM, previous)
    assert left, "timed out"  # where the exception was caught
    assert peak < MAX_BYTES


def check(command: Command, *argv: str) -> int:
    """Run a command line, check its exit code and error output, and return the exit code."""
    with limits(memory=False):
        code, _, err = command(*argv)
    if code == 0:
        assert err == ""
    else:
        assert code in {1, 2}
        assert all(line.startswith("error: ") for line in err.splitlines())
        assert err.count("\n") == 1 or "--images" in argv
    return code


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Draw a damaged file: bytes overwritten, inserted or deleted, truncated, or continued as another file."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        # More often in the header, which has the sizes.
        place = draw(st.one_of(st.integers(0, min(64, len(content))), st.integers(0, len(content))))
        extreme = st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff", b"9" * 9])
        inserted = draw(st.one_of(st.binary(max_size=8), extreme))
        how = draw(st.sampled_from(["overwrite", "overwrite", "insert", "delete", "truncate", "continue"]))
        if how == "truncate":
            del content[place:]
        elif how == "delete":
            del content[place : place + draw(st.integers(1, 100))]
        elif how == "continue":
            other = draw(st.sampled_from(originals))
            content[place:] = other[draw(st.integers(0, len(other))) :]
        else:
            content[place : place + len(inserted) * (how == "overwrite")] = inserted
    return bytes(content)


# Data files

LABELS = MNIST.published_files[3]
PUBLISHED = (SHIPPED / LABELS.name).read_bytes()


@examples(30)
@given(st.one_of(st.binary(max_size=2_000), mutated([PUBLISHED, zlib.decompress(PUBLISHED, 31)])))
def test_only_the_published_data_file_is_accepted(content: bytes) -> None:
    with limits():
        assert LABELS.is_valid(content) == (content == PUBLISHED)


# Checkpoints


@pytest.fixture(scope="module")
def checkpoint(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint of untrained weights, saved by a stock Trainer."""
    path = tmp_path_factory.mktemp("checkpoint") / "my.ckpt"
    stock = stock_trainer(path.parent, max_steps=0)
    stock.fit(DigitClassifier(channels=[1]), MNISTDataModule(data_dir=str(data_dir)))
    stock.save_checkpoint(path)
    return path.read_bytes()


def pickle_call(name: str, number: int) -> bytes:
    """Return a pickle that calls a global with a number."""
    return b"\x80\x02c%s\nJ%s\x85R." % (name.encode(), struct.pack("<i", number))


def repacked(checkpoint: bytes, name: str, content: bytes, compression: int = ZIP_STORED) -> bytes:
    """Return a checkpoint with the content of one archive member replaced."""
    file = BytesIO()
    with ZipFile(BytesIO(checkpoint)) as old, ZipFile(file, "w", compression) as new:
        for path in old.namelist():
            new.writestr(path, content if path.endswith(f"/{name}") else old.read(path))
    return file.getvalue()


def check_checkpoint(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with limits():
        try:
            passed = all(value.isfinite().all() for value in Checkpoint.read(path).content["state_dict"].values())
        except ValueError as error:
            passed = str(error).startswith(str(path))
    assert passed


@examples(60)
@given(data=st.data())
def test_damaged_checkpoint_is_valid_or_rejected(checkpoint: bytes, tmp_path: Path, data: st.DataObject) -> None:
    check_checkpoint(tmp_path / "any.ckpt", data.draw(st.one_of(st.binary(), mutated([checkpoint]))))


CALLS = ["builtins\nbytearray", "torch\nTensor", "torch._utils\n_rebuild_tensor_v2", "os\nmkdir", "torch.nn\nLinear"]
MEMBERS = ["data.pkl", "data/0", "version", "byteorder"]


@examples(40)
@given(
    st.sampled_from(MEMBERS),
    st.one_of(
        st.binary(max_size=200),
        st.integers(0, 50_000_000).map(bytes),
        st.builds(pickle_call, st.sampled_from(CALLS), st.integers(0, 2**31 - 1)),
    ),
    st.sampled_from([ZIP_STORED, ZIP_DEFLATED]),
)
def test_checkpoint_with_a_replaced_member_is_valid_or_rejected(
    checkpoint: bytes, tmp_path: Path, name: str, content: bytes, compression: int
) -> None:
    check_checkpoint(tmp_path / "any.ckpt", repacked(checkpoint, name, content, compression))


NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30]))
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5))
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@examples(6)
@given(data=st.data())
def test_checkpoint_with_random_settings_is_used_or_rejected(
    checkpoint: bytes, command: Command, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    content = torch.load(BytesIO(checkpoint), weights_only=True)
    for group in ("hyper_parameters", "datamodule_hyper_parameters"):
        names = st.one_of(st.sampled_from(sorted(content[group])), st.text(max_size=5))
        content[group] |= data.draw(st.dictionaries(names, st.one_of(VALUES, st.lists(NUMBERS)), max_size=2))
    torch.save(content, "any.ckpt")
    monkeypatch.setattr("mnist_lit.commands.evaluate.build_trainer", lambda *_: Mock(world_size=1))
    monkeypatch.setattr("mnist_lit.commands.evaluate.report_test", lambda *_: ({"total": 0}, []))
    check(command, "test", "--ckpt_path=any.ckpt")


# Pictures


def pictures() -> list[bytes]:
    """Return a small picture of a digit in several formats and modes."""
    image = Image.new("L", (60, 60), 255)
    image.paste(0, (25, 10, 33, 50))
    formats: list[tuple[str, str, dict[str, Any]]] = [
        ("PNG", "L", {}),
        ("PNG", "P", {}),
        ("PNG", "I;16", {}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("GIF", "P", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("BMP", "RGB", {}),
        ("PPM", "L", {}),
        ("PPM", "1", {}),
        ("TIFF", "F", {}),
        ("TIFF", "L", {}),
    ]
    contents = []
    for name, mode, options in formats:
        image.convert(mode).save(file := BytesIO(), name, **options)
        contents.append(file.getvalue())
    return contents


@examples(120)
@given(st.one_of(st.binary(max_size=100), mutated(pictures())))
def test_damaged_picture_is_valid_or_rejected(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "any.png").write_bytes(content)
    pixels = None
    with limits(), suppress(ValueError):
        pixels = open_image(str(path))
    assert pixels is None or (pixels.min() >= 0 and pixels.max() <= 255)  # false for NaN


# Flags and config files


@pytest.fixture
def untrained(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`fit` that builds the Trainer and verifies the data, but does not train."""

    def train(start: Start, opened: Callable[[Run], None] | None = None) -> Run:
        settings = instantiate(start.parser, start.config)
        build_trainer(settings.trainer)
        MNIST.fetch(settings.data.data_dir, ["none"])
        run = new_run(start.config.experiment)
        if opened:
            opened(run)
            run.config.touch()
            run.record(fit={"epochs": 0, "seconds": 0.0, "best_epoch": None, "best_val_accuracy": None})
        return run

    for name in ("commands.fit", *(["studies.seeds"] if has_room("studies") else [])):
        monkeypatch.setattr(f"mnist_lit.{name}.train", train)
    return command


FLAGS = sorted(name for name in build_parser("fit").get_defaults().keys() if name != "config")  # noqa: SIM118
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=10)  # with surrogates and NUL
LAUGHS = "{a: &a [x, x, x, x, x, x], b: &b [*a, *a, *a, *a], c: &c [*b, *b, *b, *b], d: [*c, *c, *c, *c, *c, *c]}"
EDGE_CASES = ["nan", "inf", "-inf", ".nan", "1e400", "-1", "0", "9" * 30, "9" * 5_000, "", "null", "/dev/zero", "a\0b"]
EDGE_CASES += ["[]", "{}", "[nan]", "[[]]", "[" * 2_000, "&a [*a]", LAUGHS, "!!int x", "!!timestamp 3"]
EDGE_CASES += ['{"class_path": "os.system"}']
FLAG_VALUES = st.one_of(st.sampled_from(EDGE_CASES), ANY_TEXT, VALUES.map(str))


@examples(8)
@given(st.lists(st.tuples(st.sampled_from(FLAGS), FLAG_VALUES), min_size=1, max_size=2))
def test_random_flags_are_accepted_or_rejected(untrained: Command, flags: list[tuple[str, str]]) -> None:
    check(untrained, "fit", *(f"--{name}={value}" for name, value in flags))


@examples(4)
@given(st.lists(st.one_of(ANY_TEXT, st.sampled_from(["--", "-", "--data", "--data=3", "--seed"])), min_size=1))
def test_random_arguments_are_accepted_or_rejected(untrained: Command, words: list[str]) -> None:
    if "--traceback" not in words:
        check(untrained, *words)
        check(untrained, "fit", *words)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Draw a YAML document with existing settings and random values, in half of the cases with invalid bytes in it."""
    tree: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(FLAGS), max_size=3)):
        group, _, key = name.rpartition(".")
        value = draw(VALUES)
        if group and draw(st.integers(0, 9)):
            tree.setdefault(group, {})[key] = value
        else:
            tree[group or key] = value
            break
    content: bytes = yaml.safe_dump(tree).encode()
    invalid = [b"\xff", b"\0", b"\t", b"seed: 1\nseed: 2\n", b"&a [*a]", LAUGHS.encode(), b"<<: 3\n", b"? [a]\n: 3\n"]
    invalid += [b"1: 2\n", b"---\n", b"[" * 2_000, b"{a: " * 500, b"x" * 200_000, b"!!python/object:os.system {}"]
    if draw(st.booleans()):
        place = draw(st.integers(0, len(content)))
        content = content[:place] + draw(st.one_of(st.sampled_from(invalid), st.binary(max_size=5))) + content[place:]
    return content


@examples(8)
@given(documents())
def test_random_config_is_accepted_or_rejected(untrained: Command, content: bytes) -> None:
    Path("any.yaml").write_bytes(content)
    check(untrained, "fit", "--config=any.yaml")


# Paths

PATHS = ["a\0b", "x" * 5_000, "\udcff", "", ".", "/", "/dev/null", "/dev/zero", "/dev/full", "\n", "-", "~"]
KINDS: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to("nowhere"),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "file": lambda path: path.write_bytes(b"hello"),
}


def make_all_kinds() -> None:
    for kind, make in KINDS.items():
        if not os.path.lexists(kind):
            make(Path(kind))


@examples(16)
@given(
    st.sampled_from(["--ckpt_path", "--experiment", "--data.data_dir", "--config"]), st.sampled_from([*PATHS, *KINDS])
)
def test_random_path_is_used_or_rejected(untrained: Command, flag: str, path: str) -> None:
    make_all_kinds()
    if (flag, path) != ("--config", "pipe"):  # which waits for a writer, so that `--config <(…)` works
        check(untrained, "test" if flag == "--ckpt_path" else "fit", f"{flag}={path}")


@examples(4)
@given(st.lists(st.sampled_from([*PATHS, *KINDS]), min_size=1, max_size=4), st.sampled_from([*PATHS, "folder"]))
def test_random_pictures_and_output_are_used_or_rejected(
    command: Command, checkpoint: bytes, names: list[str], target: str
) -> None:
    make_all_kinds()
    Path("my.ckpt").write_bytes(checkpoint)
    Path("digit.png").write_bytes(pictures()[0])
    names = [name for name in names if name not in {"/", "."}]  # which may have any number of pictures
    argv = ["predict", "--ckpt_path=my.ckpt", "--images", "digit.png", *names, f"--output={target}"]
    check(command, *argv)


def test_printed_config_is_accepted(untrained: Command) -> None:
    """A config of all settings is within the limits of the YAML loader."""
    code, out, _ = untrained("fit", "--print_config")
    assert code == 0
    Path("all.yaml").write_text(out, encoding="utf-8")
    assert check(untrained, "fit", "--config=all.yaml") == 0
    assert len(json.dumps(yaml.safe_load(out))) > 1_000
