"""The shape of the package: imports point down, importing it is light, the public names are pinned."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import topo_callback

PACKAGE = Path(topo_callback.__file__).parent

# from the leaves to the face; a module imports only from units before its own, or from its own package
ORDER = (
    "_lazy", "errors", "wording", "terminal", "tables", "subsamples", "libraries",
    "setting_kinds", "setting_effects", "groups",
    "devices", "homology", "measures", "presets", "config", "settings", "setting_changes", "reading_conditions",
    "storage", "records", "training_loop",
    "dynamics", "trajectory", "measuring",
    "state", "probe", "capture", "tiles", "geometry",
    "sinks", "figures", "comparison", "controls", "page", "worker",
    "distributed", "studies", "reader", "watching",
    "callback", "loop", "scan", "pruning", "integrations", "demo", "commands", "cli", "__main__", "__init__",
)  # fmt: skip


def unit_of(module: str) -> str:
    """The first name below the package: `homology` for topo_callback.homology.rips."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def files() -> dict[str, Path]:
    """Module name -> file."""
    paths = {
        ".".join(("topo_callback", *path.relative_to(PACKAGE).with_suffix("").parts)): path
        for path in PACKAGE.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def importers() -> dict[str, set[str]]:
    """Module -> the modules that import it, inside their functions too."""
    modules, found = files(), defaultdict(set)
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found[whole if whole in modules else node.module].add(name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    found[alias.name].add(name)
    return {name: found[name] - {name} for name in modules}


def imports() -> list[tuple[str, str]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        unit = relative.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("topo_callback"):
                if node.module == "topo_callback":
                    found += [(unit, alias.name) for alias in node.names]
                else:
                    found.append((unit, unit_of(node.module)))
            elif isinstance(node, ast.Import):
                found += [
                    (unit, unit_of(alias.name)) for alias in node.names if alias.name.startswith("topo_callback.")
                ]
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{relative}: a relative import"
    return found


def test_every_module_has_its_place_in_the_order() -> None:
    units = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert units == set(ORDER)


def test_imports_point_down() -> None:
    place = {unit: number for number, unit in enumerate(ORDER)}
    upward = {(unit, target) for unit, target in imports() if unit != target and place[target] >= place[unit]}
    # the package's own __init__ only hands names on
    assert {pair for pair in upward if pair[0] != "__init__"} == set()


def test_no_files_import_each_other_in_a_circle() -> None:
    below = defaultdict(set)
    for module, above in importers().items():
        for importer in above:
            below[importer].add(module)
    list(TopologicalSorter(below).static_order())  # CycleError names the files


LONGEST = 420
SMALL = 50
DOORS = ("topo_callback.trajectory",)  # small, and imported by the face alone: users know them by their name


def test_a_file_is_read_in_one_go_and_a_small_one_has_several_users() -> None:
    sizes = {name: len(path.read_text().splitlines()) for name, path in files().items()}
    assert {name: lines for name, lines in sizes.items() if lines > LONGEST} == {}
    plug_ins = ("topo_callback.commands.", "topo_callback.integrations.")  # nothing imports them, or a table does
    lonely = {
        name
        for name, above in importers().items()
        if len(above) <= 1 and sizes[name] < SMALL and not name.startswith(plug_ins)
        if files()[name].name not in ("__init__.py", "__main__.py")
    }
    assert lonely == set(DOORS)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import topo_callback", ("torch", "transformers", "wandb", "numba", "gudhi", "numpy")),
        ("from topo_callback import TopologyConfig; TopologyConfig()", ("torch", "transformers", "numba", "gudhi")),
        ("from topo_callback import Trajectory", ("torch", "transformers", "numba", "gudhi", "pandas")),
        pytest.param(
            "import topo_callback.callback",
            ("wandb", "numba", "gudhi", "ripser", "dionysus", "ot", "matplotlib.pyplot"),
            marks=pytest.mark.slow,
        ),
        (
            "from topo_callback.worker.task import warm_up; warm_up('auto', 'auto')",
            ("torch", "transformers", "wandb", "scipy.signal", "scipy.stats", "matplotlib"),
        ),
        ("import topo_callback.figures.figures", ("torch", "transformers", "matplotlib.pyplot")),
        (
            "from topo_callback.cli import build_parser; build_parser().format_help()",
            ("numpy", "scipy", "pandas", "matplotlib", "rich", "yaml", "torch", "transformers", "wandb", "numba"),
        ),
        (
            "from topo_callback import comparison, controls, page, pruning, scan",
            ("numpy", "scipy", "matplotlib", "rich", "torch"),
        ),
    ],
)
def test_importing_loads_no_more_than_it_needs(statement: str, absent: tuple[str, ...]) -> None:
    check = f"import sys; {statement}; print(sorted(set({absent!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_public_names_are_these() -> None:
    assert topo_callback.__all__ == [
        "Barcode", "ConfigurationError", "Event", "FolderBusyError", "MemorySink", "MissingExtraError", "ParallelProbe",
        "Probe", "ProbeError", "RecordError", "Snapshot", "TopologyCallback", "TopologyConfig", "TopologyError",
        "Trajectory", "UnsupportedModelError", "Watch", "watch",
    ]  # fmt: skip
    for name in topo_callback.__all__:
        assert getattr(topo_callback, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'TopologicalCallback'"):
        topo_callback.TopologicalCallback  # noqa: B018


def test_names_that_are_loaded_on_first_use_are_listed() -> None:
    assert {*topo_callback.__all__, "__version__", "__doc__"} <= set(dir(topo_callback))
    packages = [importlib.import_module(name) for name, path in files().items() if path.name == "__init__.py"]
    missing = {each.__name__: set(getattr(each, "__all__", ())) - set(dir(each)) for each in packages}
    assert {name: names for name, names in missing.items() if names} == {}


def test_the_version_is_written_once() -> None:
    assert topo_callback.__version__ == importlib.metadata.version("topo_callback")
    project = PACKAGE.parent / "pyproject.toml"
    if project.is_file():
        assert f'version = "{topo_callback.__version__}"' in project.read_text()
        assert not any(topo_callback.__version__ in path.read_text() for path in PACKAGE.rglob("*.py"))


def test_benchmarks_and_examples_import_what_is_there() -> None:
    beside = PACKAGE.parent
    if not (beside / "benchmarks").is_dir():
        pytest.skip("the package is not in its repository")
    missing = []
    for path in sorted([*(beside / "benchmarks").glob("*.py"), *(beside / "examples").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("topo_callback"):
                home = importlib.import_module(node.module or "")
                for alias in node.names:
                    if not hasattr(home, alias.name) and not importlib.util.find_spec(f"{node.module}.{alias.name}"):
                        missing.append(f"{path.name}: {node.module}.{alias.name}")
    assert missing == []
