"""What a pickle would unfold to, computed without unpickling it."""

import re
from dataclasses import dataclass
from itertools import takewhile
from pickle import UnpicklingError
from pickletools import OpcodeInfo, genops, markobject, stackslice

__all__ = ["MAX_VALUES", "check_pickle"]

ALLOWED_GLOBALS = re.compile(
    r"collections (OrderedDict|Counter)|builtins set|_codecs encode|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (Size|\w+Storage|[a-z]\w*)"
)
"""Globals that a checkpoint's pickle may name: those that make values from bytes in the file. `torch.load` allows more,
such as bytearray, which allocates gigabytes for a number."""
MAX_VALUES = 2_000_000
"""Values in an object, each counted as often as it is referred to, and in all copies and keys together."""
CHARACTERS = 8
"""Characters of a string that count as a value."""
INTO_THE_TOP = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}


@dataclass(eq=False)
class _Object:
    """An object of a pickle: the number of its values, and whether it is part of another one."""

    size: float
    used: bool = False


MARK = _Object(0)


def check_pickle(content: bytes) -> None:
    """Check that a pickle calls allowed globals only, and does not unfold to far more values than its bytes suggest.

    A few bytes may refer to a large object many times: calls would copy it, and hashing it as a key would never end.

    Raises:
        UnpicklingError: if either check fails.
    """
    stack: list[_Object] = []
    memo: dict[int, _Object] = {}
    copied = 0.0
    for opcode, argument, _ in genops(content):
        if opcode.name in {"GLOBAL", "INST"} and not ALLOWED_GLOBALS.fullmatch(str(argument)):
            raise UnpicklingError(f"{argument} is not allowed")
        if opcode.name in {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}:
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        elif opcode.name in {"GET", "BINGET", "LONG_BINGET"}:
            stack.append(memo[int(argument or 0)])
        elif opcode.name == "MARK":
            stack.append(MARK)
        else:
            taken = _take(stack, opcode)
            size = sum(value.size for value in taken)
            size += len(argument) // CHARACTERS if isinstance(argument, str | bytes) else 0
            if opcode.name in {"REDUCE", "BUILD"}:
                copied += size
            elif opcode.name in {"SETITEM", "SETITEMS", "DICT"}:
                copied += sum(key.size for key in taken[::2])
            if max(copied, size) > MAX_VALUES:
                raise UnpicklingError("it would unfold to more than its size")
            _put(stack, opcode, size)


def _take(stack: list[_Object], opcode: OpcodeInfo) -> list[_Object]:
    """Pop the arguments of an operation from the stack, except the object into which it puts them."""
    number = len(opcode.stack_before)
    if stackslice in opcode.stack_before:
        number += sum(1 for _ in takewhile(lambda value: value is not MARK, reversed(stack))) - 1
    number -= opcode.name in INTO_THE_TOP
    taken = [value for value in stack[len(stack) - number :] if value is not MARK]
    del stack[len(stack) - number :]
    for value in taken:
        value.used |= opcode.name != "POP"
    return taken


def _put(stack: list[_Object], opcode: OpcodeInfo, size: float) -> None:
    """Put the result of an operation, with values of this size in it, on the stack."""
    if opcode.name not in INTO_THE_TOP:
        stack += [_Object(1 + size) for kind in opcode.stack_after if kind is not markobject]
    elif stack[-1].used:
        raise UnpicklingError("an object grows that is part of another one")
    else:
        stack[-1].size += size
