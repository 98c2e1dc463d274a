"""What is public in Python: the one list, for the page reference/python.md, for stability.md and for the tests."""

from __future__ import annotations

import ast
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]

# module -> heading of its names on the page
PUBLIC = {
    "topo_callback": "The package itself",
    "topo_callback.dynamics.verdict": "The verdict of a run",
    "topo_callback.groups": "Groups of prompts",
    "topo_callback.records.drift_words": "Drift in words",
    "topo_callback.records.fingerprint": "The fingerprint of a run",
    "topo_callback.dynamics": "Events and reference runs",
    "topo_callback.sinks": "Sinks",
    "topo_callback.homology": "Persistent homology",
    "topo_callback.measures.zigzags": "Survival between two stages",
    "topo_callback.measures.behaviour": "Means over prompts",
    "topo_callback.figures": "Figures",
    "topo_callback.page": "The report page",
    "topo_callback.comparison": "Comparing runs",
    "topo_callback.controls": "Controls of zigzags",
    "topo_callback.pruning": "Cutting layers",
    "topo_callback.scan": "Reading checkpoints",
    "topo_callback.storage": "Runs in object storage",
    "topo_callback.integrations.settings": "Settings in argument parsers",
    "topo_callback.integrations.lightning": "Lightning",
    "topo_callback.integrations.axolotl": "Axolotl",
}

# of a module that is public only in part
_PART = {
    "topo_callback.dynamics.verdict": ("Verdict", "Figure", "Measured"),
    "topo_callback.groups": ("Groups", "pair_key"),
    "topo_callback.records.drift_words": ("DriftWords", "DriftReading", "Word"),
    "topo_callback.records.fingerprint": ("Fingerprint",),
    "topo_callback.measures.zigzags": ("two_stage_survival",),
    "topo_callback.measures.behaviour": ("mean_and_error",),
    "topo_callback.storage": ("Stored", "OF_RUN"),
    "topo_callback.integrations.lightning": ("LightningTopologyCallback",),
    "topo_callback.integrations.axolotl": ("TopologyPlugin",),
}

# methods that other parts of the package call, and users have no business with
INTERNAL = {
    "topo_callback.Barcode": ("ordered",),
    "topo_callback.Event": ("of",),
    "topo_callback.Snapshot": ("from_record", "nbytes", "to_record", "without_arrays"),
    "topo_callback.TopologyConfig": ("check_installed", "check_points"),
    "topo_callback.Trajectory": ("at_its_end", "thinned"),
    "topo_callback.dynamics.verdict.Measured": ("differs", "of"),
    "topo_callback.groups.Groups": ("label", "of_labels", "of_run", "to_run"),
    "topo_callback.records.drift_words.DriftWords": ("of_json", "read", "to_json", "write"),
    "topo_callback.records.fingerprint.Fingerprint": ("between", "read", "write"),
    "topo_callback.dynamics.Series": ("beside", "of_snapshots"),
    "topo_callback.scan.Prompts": ("check", "check_tokenizer", "reader"),
}

# where the text of a name is that has none itself
TEXT = {"topo_callback.integrations.settings.TopologyArguments": "topo_callback.integrations.settings._AsConfig"}

# made by the package, or with arguments that another page lists: shown without the arguments of their constructor
_WITHOUT_ARGUMENTS = (
    "topo_callback.Snapshot",
    "topo_callback.TopologyConfig",
    "topo_callback.Trajectory",
    "topo_callback.Watch",
    "topo_callback.dynamics.verdict.Verdict",
    "topo_callback.integrations.settings.TopologyArguments",
)

# the names of the package itself in the order in which a user meets them; errors and the like follow
_FIRST = (
    "TopologyCallback", "TopologyConfig", "Trajectory", "Probe", "ParallelProbe", "watch", "Watch", "Snapshot",
    "Barcode", "Event", "MemorySink", "TopologyError",
)  # fmt: skip


def public_names(module: str) -> tuple[str, ...]:
    """The public names of a public module, without importing it: some need a framework."""
    if module in _PART:
        return _PART[module]
    path = ROOT.joinpath(*module.split("."))
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    (listed,) = (
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return tuple(ast.literal_eval(listed))


def python_page() -> str:
    """The page of the public names, with directives of mkdocstrings for their docstrings."""
    lines = [(ROOT / "docs" / "reference" / "python-head.txt").read_text()]
    lines.append("| module | names |\n|---|---|")
    anchors = {module: heading.lower().replace(" ", "-") for module, heading in PUBLIC.items()}
    lines += [f"| `{module}` | [{heading}](#{anchors[module]}) |" for module, heading in PUBLIC.items()]
    lines.append("")
    top = public_names("topo_callback")
    place = {name: number for number, name in enumerate((*_FIRST, *sorted({*top} - {*_FIRST})))}
    for module, heading in PUBLIC.items():
        lines.append(f"## {heading}\n\n`{module}`\n")
        names = public_names(module)
        for name in sorted(names, key=place.__getitem__) if names == top else names:
            if name in top and module != "topo_callback":
                lines.append(f"`{name}` is described [above](#topo_callback.{name}).\n")
            else:
                lines += _directive(f"{module}.{name}")
    return "\n".join(lines) + "\n"


def _directive(name: str) -> list[str]:
    options = []
    if name in INTERNAL:
        options.append(f"filters: {json.dumps(['!^_', *(f'!^{each}$' for each in INTERNAL[name])])}")
    if name in _WITHOUT_ARGUMENTS:
        options.append("merge_init_into_class: false")
    if name in TEXT:
        options.append(f"heading: {name.rpartition('.')[2]}")
        options.append(f"toc_label: {name.rpartition('.')[2]}")
    indented = [f"    options:\n      {options[0]}", *(f"      {each}" for each in options[1:])] if options else []
    return [f"::: {TEXT.get(name, name)}", *indented, ""]
