"""Homology could be a library of its own: what it imports, what it hands on, one subject a file."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from topo_callback import homology

HOME = Path(homology.__file__).parent
FILES = {path.stem: ast.parse(path.read_text()) for path in sorted(HOME.glob("*.py"))}
HEAVY = (
    "torch", "transformers", "gudhi", "ripser", "redzed_tda", "dionysus", "sklearn", "matplotlib", "pandas", "wandb",
    "scipy.stats", "scipy.spatial", "scipy.optimize", "scipy.signal",
)  # fmt: skip


def imported(tree: ast.AST) -> set[str]:
    """The modules that a file imports, inside its functions too; names of the package itself count as modules."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = node.module == "topo_callback.homology"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if whole else {str(node.module)}
    return found


def loaded_by(statement: str, names: tuple[str, ...]) -> list[str]:
    check = f"import sys; {statement}; print(*sorted(set({names!r}) & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("from topo_callback.homology import Barcode, union_graph, mean_similarity", (*HEAVY, "numba")),
        ("from topo_callback.homology import rips_persistence", HEAVY),
        ("from topo_callback.homology import rips_persistence as f; import numpy; f(1 - numpy.eye(4))", HEAVY),
        (
            "from topo_callback.homology import zigzag_persistence as f; import numpy; f(numpy.array([[[1], [0]]]))",
            HEAVY,
        ),
        ("from topo_callback.homology import *", HEAVY),
    ],
)
def test_importing_and_computing_load_no_more_than_they_need(statement: str, absent: tuple[str, ...]) -> None:
    assert loaded_by(statement, absent) == []


def test_it_rests_on_nothing_of_the_package_but_errors_and_lazy_names() -> None:
    outside = {
        name
        for tree in FILES.values()
        for name in imported(tree)
        if name.startswith("topo_callback") and not name.startswith("topo_callback.homology.")
    }
    assert outside == {"topo_callback._lazy", "topo_callback.errors"}


def test_its_modules_make_no_circle() -> None:
    prefix = "topo_callback.homology."
    graph = {
        name: {other.removeprefix(prefix) for other in imported(tree) if other.startswith(prefix)}
        for name, tree in FILES.items()
        if name != "__init__"
    }
    assert set().union(*graph.values()) <= set(graph)
    TopologicalSorter(graph).prepare()  # a CycleError names the modules


def test_one_subject_a_file() -> None:
    assert 20 <= len(FILES) <= 34
    assert {name: lines for name in FILES if (lines := len((HOME / f"{name}.py").read_text().splitlines())) > 350} == {}


def test_kernels_are_in_the_files_by_which_their_cache_is_named() -> None:
    for name, tree in FILES.items():
        decorated = any(
            isinstance(node, ast.FunctionDef) and "kernel" in [ast.unparse(each) for each in node.decorator_list]
            for node in ast.walk(tree)
        )
        assert not decorated or name.endswith("_kernels"), name
    elsewhere = [path for path in HOME.parent.rglob("*_kernels.py") if path.parent != HOME]
    assert elsewhere == []


def test_every_name_is_there_and_no_module_takes_its_place() -> None:
    for name in FILES:
        importlib.import_module(f"topo_callback.homology.{name}".removesuffix(".__init__"))
    assert not set(FILES) & set(homology.__all__)
    assert homology.__all__ == sorted(homology.__all__)
    assert [getattr(homology, name).__name__ for name in homology.__all__] == homology.__all__
    with pytest.raises(AttributeError, match="no attribute 'rips'"):
        homology.__getattr__("rips")


@pytest.mark.parametrize("name", homology.__all__)
def test_every_name_says_what_goes_in_and_what_comes_out(name: str) -> None:
    thing = inspect.unwrap(getattr(homology, name))
    text = inspect.getdoc(thing) or ""
    if inspect.isfunction(thing):
        referred = [each for each in homology.__all__ if f"`{each}`" in text and "are " in text]
        missing = [each for each in inspect.signature(thing).parameters if each not in text]
        assert not missing or referred
        assert "Returns:" in text or referred
    else:
        assert "Attributes:" in text
