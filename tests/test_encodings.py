"""Texts are UTF-8 on every system: none is read or written in the encoding of the system."""

import ast
from pathlib import Path

PROJECT = Path(__file__).parent.parent
FILES = [*PROJECT.glob("*.py"), *PROJECT.glob("mnist_lit/**/*.py"), *PROJECT.glob("tests/**/*.py")]
BINARY = {"os", "Image"}
"""Whose `open` knows no encoding."""


def without_encoding(code: str) -> list[int]:
    """Return the lines in which a text file is opened without an encoding."""
    return [
        call.lineno
        for call in ast.walk(ast.parse(code))
        if isinstance(call, ast.Call) and _is_text(call) and not any(given.arg == "encoding" for given in call.keywords)
    ]


def _is_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in {"read_text", "write_text"}:
        return isinstance(call.func, ast.Attribute)
    if name != "open" or (isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in BINARY):
        return False
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return not any(isinstance(one, ast.Constant) and one.value in {"rb", "wb", "ab", "xb", "w+b"} for one in given)


def test_no_text_is_opened_without_an_encoding() -> None:
    assert len(FILES) > 50
    found = {str(path): without_encoding(path.read_text(encoding="utf-8")) for path in FILES}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_what_is_opened_without_an_encoding_is_found() -> None:
    texts = 'path.read_text()\npath.write_text("a")\npath.open()\nopen("a", "w")\nopen("a", mode="r")\n'
    assert without_encoding(texts) == [1, 2, 3, 4, 5]
    others = 'path.open("rb")\nopen("a", mode="wb")\nImage.open(path)\npath.open(encoding="utf-8")\nwrite_text(a, b)\n'
    assert without_encoding(others) == []
