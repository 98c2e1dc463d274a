"""The files of a comparison: comparison.json and its figures. They are made before the first of them is written."""

from __future__ import annotations

import json
from pathlib import Path

from topo_callback.comparison.claims import onset_of
from topo_callback.comparison.comparison import Comparison
from topo_callback.comparison.content import content
from topo_callback.comparison.tables import shown_measures
from topo_callback.errors import RecordError
from topo_callback.figures.comparison_figures import (
    CurvePanel,
    curves_figure,
    distances_figure,
    encode_figure,
    run_map_figure,
)
from topo_callback.records.record import write_whole

PANELS = 6


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.json`, and `curves`, `distances` and `map` as PNG and SVG.

    Figures that would be empty are not drawn. Files of the same names are replaced, each whole or not at all.

    Returns:
        The files written, comparison.json last.

    Raises:
        RecordError: the folder or a file cannot be written.
    """
    files: dict[str, bytes] = {}
    for name, figure in _figures(comparison).items():
        files |= {f"{name}.{kind}": encode_figure(figure, kind) for kind in ("png", "svg")}
    text = json.dumps(content(comparison), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    files["comparison.json"] = (text + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_whole(folder / name, data)
    except OSError as error:
        raise RecordError(f"{folder}: the comparison cannot be written ({error.strerror or error})") from error
    return [folder / name for name in files]


def _figures(comparison: Comparison) -> dict[str, object]:
    measures = shown_measures(comparison, PANELS)
    if not measures or comparison.joint is None or comparison.map is None:
        return {}
    alignment = comparison.alignment
    objectives = [run.objective for run in comparison.runs]
    seeds = [run.name.removeprefix(run.objective).strip(", ").removeprefix("seed ") for run in comparison.runs]
    panels = []
    for measure in measures:
        begins = onset_of(comparison, measure)
        panels.append(CurvePanel(measure, alignment.values[measure][None], begins.first if begins else None))
    unit = alignment.unit
    return {
        "curves": curves_figure(panels, alignment.positions, objectives, unit, evenly=alignment.axis == "step"),
        "distances": distances_figure(comparison.joint, objectives, seeds),
        "map": run_map_figure(
            comparison.map.coordinates, objectives, seeds, comparison.map.explained, comparison.map.stress
        ),
    }
