"""A pickle is refused before it is unpickled if it would run code, or unfold to more than its bytes."""

import pickle
from collections import Counter, OrderedDict
from io import BytesIO
from pickle import UnpicklingError
from time import monotonic
from zipfile import ZipFile

import pytest
import torch

from mnist_lit.runs.unpickling import MAX_VALUES, check_pickle


def string(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def doubled(depth: int) -> bytes:
    """Return pickled tuples, each with the one before it twice: 2**depth numbers in 6 * depth bytes."""
    levels = (b"h%ch%c\x86q%c0" % (level, level, level + 1) for level in range(depth))
    return b"K\x01q\x000" + b"".join(levels) + b"h%c" % depth


BOMBS = {
    "copied text": b"\x80\x02c_codecs\nencode\nq\x000%bq\x010%bq\x020](%be."
    % (string("a" * 25_000), string("latin1"), b"h\x00h\x01h\x02\x86R" * 3_000),
    "copied list": b"\x80\x02cbuiltins\nset\nq\x000](%beq\x010](%be." % (b"K\x01" * 10_000, b"h\x00h\x01\x85R" * 5_000),
    "list that grows": b"\x80\x02cbuiltins\nset\nq\x000]q\x010](h\x01(%be%be."
    % (b"K\x01" * 10_000, b"h\x00h\x01\x85R" * 5_000),
    "copied state": b"\x80\x02ccollections\nOrderedDict\nq\x000}q\x01(%bu0](%be."
    % (b"".join(b"M%bN" % number.to_bytes(2, "little") for number in range(9_000)), b"h\x00)Rh\x01b" * 3_000),
    "key that is set again": b"\x80\x02%bq\xff0}q\xfe0(%b." % (doubled(19), b"h\xfeh\xffNs0" * 5_000),
    "key": b"\x80\x02}%bK\x01s." % doubled(60),
    "key of several": b"\x80\x02}(%bK\x01K\x02K\x03u." % doubled(60),
    "value": b"\x80\x02%b." % doubled(60),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_few_bytes_that_stand_for_many_values_are_refused(bomb: bytes) -> None:
    assert len(bomb) < 60_000
    start = monotonic()
    with pytest.raises(UnpicklingError, match="unfold to more than its size"):
        check_pickle(bomb)
    assert monotonic() - start < 5


def test_an_object_that_grows_within_another_one_is_refused() -> None:
    """The tuple would be counted as it was before."""
    bomb = b"\x80\x02cbuiltins\nset\nq\x000]q\x01\x85q\x020h\x01(%be0](%be." % (
        b"K\x01" * 10_000,
        b"h\x00h\x02R" * 5_000,
    )
    with pytest.raises(UnpicklingError, match="an object grows that is part of another one"):
        check_pickle(bomb)


@pytest.mark.parametrize("name", [b"os\nsystem", b"builtins\neval", b"builtins\nbytearray", b"numpy\nndarray"])
def test_other_globals_are_refused(name: bytes) -> None:
    with pytest.raises(UnpicklingError, match="is not allowed"):
        check_pickle(b"\x80\x02c%b\n." % name)


def test_what_a_training_saves_is_accepted() -> None:
    network = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(200)))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.zeros(1, 4)).sum().backward()
    optimizer.step()
    states = [network.state_dict(), optimizer.state_dict(), Counter([1, 2]), OrderedDict(a=1), {"long": "a" * 100_000}]
    torch.save(states, file := BytesIO())
    with ZipFile(file) as archive:
        check_pickle(archive.read(next(name for name in archive.namelist() if name.endswith(".pkl"))))
    check_pickle(pickle.dumps(list(range(MAX_VALUES // 20)), protocol=2))
