"""YAML is loaded as plain values of bounded size, or rejected with the reason."""

from itertools import pairwise
from pathlib import Path

import pytest
from yaml import YAMLError

from mnist_lit.commands.flags import build_parser, parse
from mnist_lit.system.errors import UsageError
from mnist_lit.system.yaml_loader import load

NAMES = "abcdefghijkl"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(NAMES)
)
"""9¹² values in 600 characters."""


def test_load_resolves_aliases_and_merge_keys() -> None:
    text = "a: &a [1, 1e-3, true]\nb: *a\nc: {<<: {d: null}}\n"
    assert load(text) == {"a": [1, 0.001, True], "b": [1, 0.001, True], "c": {"d": None}}


def test_load_leaves_other_values_as_they_are() -> None:
    text = "[0, 0.5, 1e-3, -1, 10, '010', '12:00:00', 00:00:00:05, 'None', US$, 5$, a$b, none]"
    expected = [0, 0.5, 0.001, -1, 10, "010", "12:00:00", "00:00:00:05", "None", "US$", "5$", "a$b", "none"]
    assert load(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 1,000 values, aliases expanded"),
        ("a: &a [*a]\n", "more than 1,000 values"),
        ("a: &a {b: *a}\n", "more than 1,000 values"),
        (f"[{'1, ' * 1_000}1]", "more than 1,000 values"),
        ("a" * 100_001, "more than 100,000 characters"),
        ("seed: 1\ndata: {}\nseed: 2\n", r"(?s)duplicate key seed.*line 3"),
        ("data: {val_size: 1, val_size: 2}\n", "duplicate key val_size"),
        ("seed: !!int x\n", "a value does not match its tag: invalid literal"),
        ("seed: !!timestamp 3\n", "a value does not match its tag"),
        ("seed: !!python/object/apply:os.mkdir [trap]\n", "could not determine a constructor"),
        ("[" * 900 + "]" * 900, "nested too deeply"),
        ("a: 1\nseed: 010\n", "^line 2: 010 is octal in YAML: write a number without leading zeros$"),
        *((f"{{val_size: {number}}}", f"{number} is octal in YAML") for number in ("0500", "-07", "007", "0_1")),
        *(
            (f"max_time: {time}", f"{time} is a number of seconds in YAML")
            for time in ("12:00:00", "1:40", "1:00:00:00")
        ),
        ("max_epochs: None", "None is a text in YAML: write null"),
        *((f"data_dir: {text}", "is a variable") for text in ("${HOME}/data", "$HOME/data", "'a/$USER'", '"${x.y}"')),
        ("seed: \0", "control characters are not allowed"),
    ],
)
def test_load_rejects_invalid_documents(text: str, message: str) -> None:
    with pytest.raises(YAMLError, match=message):
        load(text)


@pytest.mark.parametrize(
    ("flag", "content", "message"),
    [
        ("--config=bad.yaml", LAUGHS.encode(), "bad.yaml: more than 1,000 values"),
        ("--config=bad.yaml", b"seed: 3\xff\n", "bad.yaml is not a text in UTF-8: save it as such"),
        ("--config=a\0b", b"", "--config: no file a\0b, and no config of that name: "),
        ("--data.split_seed=!!timestamp 3", b"", "--data.split_seed=!!timestamp 3"),
    ],
)
def test_an_invalid_config_file_or_value_is_named(
    flag: str, content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        parse(build_parser("fit"), [flag])
    assert str(caught.value).startswith(message)
