"""What a pickle would unfold to, computed without unpickling it."""

import re
from itertools import takewhile
from pickle import UnpicklingError
from pickletools import genops, markobject, stackslice

__all__ = ["MAX_VALUES", "check_pickle"]

ALLOWED_GLOBALS = re.compile(
    r"collections (OrderedDict|Counter)|builtins set|_codecs encode|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (Size|\w+Storage|[a-z]\w*)"
)
"""Globals that a checkpoint's pickle may name: those that make values from bytes in the file. `torch.load` allows more,
such as bytearray, which allocates gigabytes for a number."""
MAX_VALUES = 2_000_000
"""Values in an object, each counted as often as it is referred to, and in all arguments of calls together."""
CHARACTERS = 8
"""Characters of a string that count as a value."""
INTO_THE_TOP = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}


def check_pickle(content: bytes) -> None:
    """Check that a pickle calls allowed globals only, and that its values are as many as its bytes allow to expect.

    A few bytes may refer to a large object many times: calls would copy it, and hashing it as a key would never end.

    Raises:
        UnpicklingError: if it does not.
    """
    mark: list[float] = []
    stack: list[list[float]] = []  # the number of values in each object, in a list, since objects grow
    memo: dict[int, list[float]] = {}
    called = 0.0
    for opcode, argument, _ in genops(content):
        if opcode.name in {"GLOBAL", "INST"} and not ALLOWED_GLOBALS.fullmatch(str(argument)):
            raise UnpicklingError(f"{argument} is not allowed")
        if opcode.name in {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}:
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        elif opcode.name in {"GET", "BINGET", "LONG_BINGET"}:
            stack.append(memo[int(argument or 0)])
        elif opcode.name == "MARK":
            stack.append(mark)
        else:
            taken = len(opcode.stack_before)
            if stackslice in opcode.stack_before:
                items = sum(1 for _ in takewhile(lambda value: value is not mark, reversed(stack)))
                taken += items - 1  # the mark is among them
            taken -= opcode.name in INTO_THE_TOP  # which stays on the stack
            values = stack[len(stack) - taken :]
            del stack[len(stack) - taken :]
            size = sum(value[0] for value in values if value is not mark)
            size += len(argument) // CHARACTERS if isinstance(argument, str | bytes) else 0
            if opcode.name in INTO_THE_TOP:
                stack[-1][0] += size
            else:
                stack += [[1 + size] for kind in opcode.stack_after if kind is not markobject]
            called += size if opcode.name == "REDUCE" else 0
            if max(called, size) > MAX_VALUES:
                raise UnpicklingError("it would unfold to more than its size")
