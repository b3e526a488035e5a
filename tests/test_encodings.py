"""Text files are opened with an encoding: the default one depends on the system."""

import ast
from pathlib import Path

PROJECT = Path(__file__).parent.parent
FILES = [*PROJECT.glob("*.py"), *PROJECT.glob("mnist_lit/**/*.py"), *PROJECT.glob("tests/**/*.py")]
BINARY = {"os", "Image", "tarfile"}
"""Modules whose `open` has no encoding."""


def lines_without_encoding(code: str) -> list[int]:
    """Return the lines in which a text file is opened without an encoding."""
    return [
        call.lineno
        for call in ast.walk(ast.parse(code))
        if isinstance(call, ast.Call)
        and _is_text(call)
        and not any(keyword.arg == "encoding" for keyword in call.keywords)
    ]


def _is_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in {"read_text", "write_text"}:  # whose last argument by position may be the encoding
        return isinstance(call.func, ast.Attribute) and len(call.args) < (2 if name == "write_text" else 1)
    if name != "open" or (isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in BINARY):
        return False
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    return not any(isinstance(a, ast.Constant) and a.value in {"rb", "wb", "ab", "xb", "w+b"} for a in arguments)


def test_text_files_are_opened_with_an_encoding() -> None:
    assert len(FILES) > 50
    found = {str(path): lines_without_encoding(path.read_text(encoding="utf-8")) for path in FILES}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_missing_encodings_are_found() -> None:
    texts = 'path.read_text()\npath.write_text("a")\npath.open()\nopen("a", "w")\nopen("a", mode="r")\n'
    assert lines_without_encoding(texts) == [1, 2, 3, 4, 5]
    others = 'path.open("rb")\nopen("a", mode="wb")\nImage.open(path)\npath.open(encoding="utf-8")\nwrite_text(a, b)\n'
    assert lines_without_encoding(others + 'path.read_text("utf-8")\n') == []
