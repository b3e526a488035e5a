"""Whatever comes in, the answer is a result or one line with its exit code: no traceback, no hang, no flood of memory.

Each property is tried on a few examples, always the same ones. `EXAMPLES=30 pytest tests/test_properties.py` tries 30
times as many, other ones each time.
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

import numpy as np
import pytest
import torch
import yaml
from conftest import MNIST, Command, posix, stock_trainer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from server import SHIPPED

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.commands import fit as fitting
from mnist_lit.commands.resume import Start
from mnist_lit.commands.settings import build_parser, instantiate
from mnist_lit.datasets import idx
from mnist_lit.photos.images import open_image
from mnist_lit.photos.preprocess import as_mnist
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.training.trainer import build_trainer

pytestmark = posix  # an alarm ends what takes too long
TIMES = int(os.environ.get("EXAMPLES", "1"))
SECONDS = 20
"""In which each input must have been answered, on a slow machine."""
MOST_BYTES = 200_000_000
"""That Python may take for one input; NumPy's arrays are among them."""

Property = Callable[[Callable[..., None]], Callable[..., None]]


def examples(number: int) -> Property:
    """Try a property on a number of examples."""
    return settings(
        max_examples=number * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,  # `watched` has one
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@contextmanager
def watched(*, memory: bool = True) -> Iterator[None]:
    """Fail where an input takes too long or too much memory."""

    def out_of_time(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(SECONDS)
    if memory:  # to watch it takes three times as long
        tracemalloc.start()
    try:
        yield
    except TimeoutError:
        pytest.fail("no answer")
    finally:
        left = signal.alarm(0)
        _, most = tracemalloc.get_traced_memory()  # nothing, where it is not watched
        tracemalloc.stop()
        signal.signal(signal.SIGALRM, before)
    assert left, "no answer in time"
    assert most < MOST_BYTES


def answer(command: Command, *argv: str) -> int:
    """Run a command line, see to its answer, and return its exit code."""
    with watched(memory=False):
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
    """Draw a file's content, damaged: bytes overwritten, cut out, cut off, or put in from another file."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        # More often in the head, where the sizes are.
        place = draw(st.one_of(st.integers(0, min(64, len(content))), st.integers(0, len(content))))
        extreme = st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff", b"9" * 9])
        put = draw(st.one_of(st.binary(max_size=8), extreme))
        how = draw(st.sampled_from(["over", "over", "in", "out", "end", "other"]))
        if how == "end":
            del content[place:]
        elif how == "out":
            del content[place : place + draw(st.integers(1, 100))]
        elif how == "other":
            other = draw(st.sampled_from(originals))
            content[place:] = other[draw(st.integers(0, len(other))) :]
        else:
            content[place : place + len(put) * (how == "over")] = put
    return bytes(content)


# The files of a data set

LABELS = MNIST.idx_files[3]
PUBLISHED = (SHIPPED / f"{LABELS.name}.gz").read_bytes()


@examples(30)
@given(st.one_of(st.binary(max_size=2_000), mutated([PUBLISHED, zlib.decompress(PUBLISHED, 31)])))
def test_a_file_is_the_published_one_or_none(content: bytes) -> None:
    with watched():
        found = LABELS.content(BytesIO(content))
    assert found is None or bytes(found) == zlib.decompress(PUBLISHED, 31)


@examples(30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.randoms())
def test_an_idx_file_is_read_as_it_was_written(shape: list[int], chance: Any) -> None:
    values = chance.randbytes(int(np.prod(shape)))
    if not values:
        return
    header = bytes([0, 0, 8, len(shape)]) + b"".join(struct.pack(">I", side) for side in shape)
    tensor = idx._decode(bytearray(header + values))  # noqa: SLF001
    assert list(tensor.shape) == shape
    assert tensor.numpy().tobytes() == values


def make(path: Path, what: Any) -> None:
    """Make a file with some content, or something that is no file."""
    if isinstance(what, bytes):
        path.write_bytes(what)
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to("nowhere")
    elif what == "device":
        path.symlink_to("/dev/zero")


@examples(2)
@given(
    st.dictionaries(
        st.sampled_from([f"{file.name}{end}" for file in MNIST.idx_files[2:] for end in ("", ".gz")]),
        st.one_of(mutated([PUBLISHED]), st.sampled_from(["folder", "pipe", "link", "device"])),
        min_size=2,
    )
)
def test_whatever_is_in_the_data_folder_the_data_are_right_or_one_line_names_it(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, Any]
) -> None:
    raw = tmp_path_factory.mktemp("any") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, what in files.items():
        make(raw / name, what)
    with watched():
        try:
            MNIST.fetch(raw.parent.parent)
        except OSError as error:
            named = str(raw) in str(error)
        else:
            named = len(MNIST.read(raw.parent.parent, train=False)[1]) == 10_000
    assert named


# Checkpoints


@pytest.fixture(scope="module")
def checkpoint(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What Lightning saves of a training of no steps."""
    path = tmp_path_factory.mktemp("checkpoint") / "my.ckpt"
    stock = stock_trainer(path.parent, max_steps=0)
    stock.fit(DigitClassifier(channels=[1]), MNISTDataModule(data_dir=str(data_dir)))
    stock.save_checkpoint(path)
    return path.read_bytes()


def repacked(checkpoint: bytes, name: str, content: bytes, compression: int) -> bytes:
    """Return a checkpoint with another content of one of its members."""
    file = BytesIO()
    with ZipFile(BytesIO(checkpoint)) as old, ZipFile(file, "w", compression) as new:
        for path in old.namelist():
            new.writestr(path, content if path.endswith(f"/{name}") else old.read(path))
    return file.getvalue()


def read_any(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with watched():
        try:
            right = all(value.isfinite().all() for value in Checkpoint.read(path).content["state_dict"].values())
        except ValueError as error:
            right = str(error).startswith(str(path))
    assert right


@examples(60)
@given(data=st.data())
def test_bytes_are_a_checkpoint_or_refused(checkpoint: bytes, tmp_path: Path, data: st.DataObject) -> None:
    read_any(tmp_path / "any.ckpt", data.draw(st.one_of(st.binary(), mutated([checkpoint]))))


CALLS = ["builtins\nbytearray", "torch\nTensor", "torch._utils\n_rebuild_tensor_v2", "os\nmkdir", "torch.nn\nLinear"]
MEMBERS = ["data.pkl", "data/0", "version", "byteorder"]


@examples(40)
@given(
    st.sampled_from(MEMBERS),
    st.one_of(
        st.binary(max_size=200),
        st.integers(0, 50_000_000).map(bytes),
        st.builds(
            lambda call, number: b"\x80\x02c%sJ%s\x85R." % (f"{call}\n".encode(), struct.pack("<i", number)),
            st.sampled_from(CALLS),
            st.integers(0, 2**31 - 1),
        ),
    ),
    st.sampled_from([ZIP_STORED, ZIP_DEFLATED]),
)
def test_whatever_is_packed_into_a_checkpoint_it_is_read_or_refused(
    checkpoint: bytes, tmp_path: Path, name: str, content: bytes, compression: int
) -> None:
    read_any(tmp_path / "any.ckpt", repacked(checkpoint, name, content, compression))


NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30]))
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5))
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@examples(6)
@given(data=st.data())
def test_a_checkpoint_with_any_settings_is_used_or_refused(
    checkpoint: bytes, command: Command, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    content = torch.load(BytesIO(checkpoint), weights_only=True)
    for group in ("hyper_parameters", "datamodule_hyper_parameters"):
        names = st.one_of(st.sampled_from(sorted(content[group])), st.text(max_size=5))
        content[group] |= data.draw(st.dictionaries(names, st.one_of(VALUES, st.lists(NUMBERS)), max_size=2))
    torch.save(content, "any.ckpt")
    monkeypatch.setattr("mnist_lit.commands.restore.build_trainer", lambda _: Mock())
    monkeypatch.setattr("mnist_lit.commands.evaluate.report_test", lambda *_: None)
    answer(command, "test", "--ckpt_path=any.ckpt")


# Pictures


def pictures() -> list[bytes]:
    """Return a small picture of a digit in every kind of file."""
    image = Image.new("L", (60, 60), 255)
    image.paste(0, (25, 10, 33, 50))
    kinds: list[tuple[str, str, dict[str, Any]]] = [
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
    made = []
    for kind, mode, more in kinds:
        image.convert(mode).save(file := BytesIO(), kind, **more)
        made.append(file.getvalue())
    return made


@examples(120)
@given(st.one_of(st.binary(max_size=100), mutated(pictures())))
def test_a_picture_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "any.png").write_bytes(content)
    pixels = None
    with watched(), suppress(ValueError):
        pixels = open_image(str(path))
        as_mnist(pixels)
    assert pixels is None or (pixels.min() >= 0 and pixels.max() <= 255)  # which NaN is not


# Flags and config files


@pytest.fixture
def untrained(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`fit` up to where it would begin to train."""

    def train(start: Start) -> None:
        settings = instantiate(start.parser, start.config)
        build_trainer(settings.trainer)
        MNIST.fetch(settings.data.data_dir, ["none"])

    monkeypatch.setattr(fitting, "train", train)
    return command


FLAGS = sorted(name for name in build_parser("fit").get_defaults().keys() if name != "config")  # noqa: SIM118
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=10)  # surrogates, NUL and all
LAUGHS = "{a: &a [x, x, x, x, x, x], b: &b [*a, *a, *a, *a], c: &c [*b, *b, *b, *b], d: [*c, *c, *c, *c, *c, *c]}"
ODD = ["nan", "inf", "-inf", ".nan", "1e400", "-1", "0", "9" * 30, "9" * 5_000, "", "null", "[]", "{}", "[nan]", "[[]]"]
MORE = ["&a [*a]", LAUGHS, "!!int x", "!!timestamp 3", "[" * 2_000, '{"class_path": "os.system"}', "/dev/zero", "a\0b"]
GIVEN = st.one_of(st.sampled_from(ODD), st.sampled_from(MORE), ANY_TEXT, VALUES.map(str))


@examples(8)
@given(st.lists(st.tuples(st.sampled_from(FLAGS), GIVEN), min_size=1, max_size=2))
def test_any_flags_are_taken_or_named(untrained: Command, flags: list[tuple[str, str]]) -> None:
    answer(untrained, "fit", *(f"--{name}={value}" for name, value in flags))


@examples(4)
@given(st.lists(st.one_of(ANY_TEXT, st.sampled_from(["--", "-", "--data", "--data=3", "--seed"])), min_size=1))
def test_any_words_are_a_command_or_named(untrained: Command, words: list[str]) -> None:
    if "--traceback" not in words:
        answer(untrained, *words)
        answer(untrained, "fit", *words)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Draw a YAML document with settings that there are, and any values; at times with some other bytes in it."""
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
    odd = [b"\xff", b"\0", b"\t", b"seed: 1\nseed: 2\n", b"&a [*a]", LAUGHS.encode(), b"!!python/object:os.system {}"]
    odd += [b"<<: 3\n", b"? [a]\n: 3\n", b"1: 2\n", b"---\n", b"[" * 2_000, b"{a: " * 500, b"x" * 200_000]
    if draw(st.booleans()):
        place = draw(st.integers(0, len(content)))
        content = content[:place] + draw(st.one_of(st.sampled_from(odd), st.binary(max_size=5))) + content[place:]
    return content


@examples(8)
@given(documents())
def test_any_config_is_taken_or_named(untrained: Command, content: bytes) -> None:
    Path("any.yaml").write_bytes(content)
    answer(untrained, "fit", "--config=any.yaml")


# Paths

PLACES = ["a\0b", "x" * 5_000, "\udcff", "", ".", "/", "/dev/null", "/dev/zero", "/dev/full", "\n", "-", "~"]
MADE = ["folder", "pipe", "link", "device", "file"]


@examples(16)
@given(st.sampled_from(["--ckpt_path", "--experiment", "--data.data_dir", "--config"]), st.sampled_from(PLACES + MADE))
def test_any_path_is_used_or_named(untrained: Command, flag: str, where: str) -> None:
    for name in MADE:
        if not os.path.lexists(name):
            make(Path(name), b"hello" if name == "file" else name)
    if (flag, where) != ("--config", "pipe"):  # which waits for who writes into it, as `--config <(…)` does
        answer(untrained, "test" if flag == "--ckpt_path" else "fit", f"{flag}={where}")


@examples(4)
@given(st.lists(st.sampled_from(PLACES + MADE), min_size=1, max_size=4), st.sampled_from([*PLACES, "folder"]))
def test_any_pictures_and_any_target_are_used_or_named(
    command: Command, checkpoint: bytes, names: list[str], target: str
) -> None:
    for name in MADE:
        if not os.path.lexists(name):
            make(Path(name), b"hello" if name == "file" else name)
    Path("my.ckpt").write_bytes(checkpoint)
    Path("digit.png").write_bytes(pictures()[0])
    names = [name for name in names if name not in {"/", "."}]  # whose folders may hold any number of pictures
    argv = ["predict", "--ckpt_path=my.ckpt", "--images", "digit.png", *names, f"--output={target}"]
    answer(command, *argv)


def test_settings_can_be_repeated_from_what_is_dumped(untrained: Command) -> None:
    """A config of all settings is well within the limits of what is read."""
    code, out, _ = untrained("fit", "--print_config")
    assert code == 0
    Path("all.yaml").write_text(out, encoding="utf-8")
    assert answer(untrained, "fit", "--config=all.yaml") == 0
    assert len(json.dumps(yaml.safe_load(out))) > 1_000
