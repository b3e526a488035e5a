"""The layout is what the README says: imports point one way, and the experiment is three short files."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from conftest import TRAIN

PACKAGE = TRAIN.parent / "mnist_lit"
README = (TRAIN.parent / "README.md").read_text(encoding="utf-8")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
LAYERS = [
    {"__main__"},
    {"cli"},
    {"studies"},
    {"commands"},
    {"training"},
    {"runs"},
    {"classifier", "data"},
    {"reader"},
    {"model", "muon", "calibration"},
    {"datasets"},
    {"system"},
]
"""A module imports from layers below its own, and within a folder."""
ROOMS = ("reader", "studies")
FEATURES = {
    "commands.fit": {"studies.seeds"},  # --seeds
    "commands.predict": {"reader.pictures", "reader.trained"},  # pictures of digits, and --several; without a run
    "commands.export": {"reader.page.html"},  # the page
}
"""The modules of rooms that add features to a command, one import within a function for each."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the modules of the package that are imported among the nodes of a file."""
    names = {f"{node.module}.{name.name}" for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}
    modules = {name_of(path) for path in FILES}
    inside = [name.removeprefix("mnist_lit.") for name in names if name.startswith("mnist_lit.")]
    return {name if name in modules else name.rpartition(".")[0] for name in inside} - {""}


def imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, those within functions included."""
    return imported(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def part(module: str) -> str:
    """Return the folder of a module in the package, or its own name."""
    return module.partition(".")[0]


def layer(module: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part(module) in parts)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_from_the_command_line_down(path: Path) -> None:
    name = name_of(path)
    upward = {part(module) for module in imports(path) if layer(module) <= layer(name)}
    assert upward <= {part(name), *map(part, FEATURES.get(name, ()))}


CORE = [path for path in FILES if part(name_of(path)) not in ROOMS]


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_imports_a_room_only_within_a_function_for_a_feature(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not {part(module) for module in imported(ast.iter_child_nodes(tree))} & {*ROOMS}
    found = {module for module in imports(path) if part(module) in ROOMS}
    features = FEATURES.get(name_of(path), set())
    assert found <= features | {module.rpartition(".")[0] for module in features}, "the room itself, if it is not there"


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_does_without_scipy(path: Path) -> None:
    assert not re.search(r"^\s*(from|import) scipy", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_no_modules_import_each_other_in_a_circle() -> None:
    below = {name_of(path): imports(path) for path in FILES}
    for name, features in FEATURES.items():
        below[name] -= features
    while leaves := [module for module, imported in below.items() if not imported & below.keys()]:
        for module in leaves:
            del below[module]
    assert below == {}


def test_the_three_files_of_the_experiment_are_short() -> None:
    lengths = [
        len((PACKAGE / f"{name}.py").read_text(encoding="utf-8").splitlines())
        for name in ("model", "classifier", "data")
    ]
    assert sum(lengths) < 450, "README says so"


def test_no_private_name_of_a_library_is_used() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"SLF001|ignore\[method-assign\]|import _[a-z]", text), path


def test_the_network_needs_torch_only() -> None:
    assert imports(PACKAGE / "model.py") == set()
    named = re.findall(r"^(?:from|import) (\w+)", (PACKAGE / "model.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= {"collections", "typing", "torch"}


def test_readme_lists_the_folders_of_the_core_in_the_order_of_their_imports() -> None:
    files = README.partition("## Make it yours")[2].split("```")[1]
    listed = re.findall(r"^(\w+)/ +\S", files, re.MULTILINE)
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {*ROOMS}
    assert listed == sorted(folders, key=layer)


def test_readme_has_at_most_150_lines() -> None:
    assert len(README.splitlines()) <= 150
