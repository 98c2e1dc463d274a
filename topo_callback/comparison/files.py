"""The files of a comparison: comparison.json, which has every number that is defined, and its figures.

All are made before the first of them is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from topo_callback.comparison.caveats import notes
from topo_callback.comparison.comparison import Comparison, Key, Pair
from topo_callback.comparison.effects import Difference, EffectSizes
from topo_callback.comparison.fingerprint_tables import fingerprint_content
from topo_callback.comparison.labelings import Labelings
from topo_callback.comparison.own_spread import LEVEL
from topo_callback.comparison.permutation import CurveTest, ObjectiveTest, StepTest
from topo_callback.comparison.significance import (
    differing_layers,
    measure_differs,
    objectives_differ,
    onset_of,
    onset_together,
    pair_differs,
)
from topo_callback.comparison.tables import shown_measures
from topo_callback.figures.comparison_figures import (
    CurvePanel,
    curves_figure,
    distances_figure,
    encode_figure,
    run_map_figure,
)
from topo_callback.libraries import versions
from topo_callback.records.results import plain_numbers, result_json, write_results

SCHEMA = 1
MEDIAN = "median"
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
    files["comparison.json"] = result_json(content(comparison))
    return write_results(files, folder, "the comparison")


def _figures(comparison: Comparison) -> dict[str, object]:
    measures = shown_measures(comparison, PANELS)
    if not measures or comparison.joint is None or comparison.map is None:
        return {}
    alignment = comparison.alignment
    objectives = [run.objective for run in comparison.runs]
    seeds = [re.sub("^(seed|unit) ", "", run.name.removeprefix(run.objective).strip(", ")) for run in comparison.runs]
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


def content(comparison: Comparison) -> dict[str, Any]:
    """JSON-compatible; lists of runs are in the order of `runs`, lists of points in that of `positions`.

    Keys of layers are their numbers as text, and `median` for the median over layers or the number of the whole depth.
    Curves are those of the medians; the trajectories have the rest.
    """
    alignment = comparison.alignment
    return {
        "tool": "topo_callback",
        "kind": "comparison",
        "schema": SCHEMA,
        "versions": versions(("topo_callback", "numpy", "scipy")),
        "verdict": asdict(comparison.verdict),
        "level": LEVEL,
        "levels": asdict(comparison.levels),
        "spread_ratio": comparison.spread_ratio,
        "objectives": list(comparison.objectives),
        "notes": notes(comparison),
        "runs": _runs(comparison),
        "alignment": {
            "axis": alignment.axis,
            "unit": alignment.unit,
            "positions": alignment.positions.tolist(),
            "left_out": dict(alignment.left_out),
        },
        "curves": {
            measure: [plain_numbers(row) for row in alignment.values[measure][None]]
            for measure in alignment.values
            if (measure, None) in comparison.distances
        },
        "labelings": _labelings(comparison.labelings),
        "test": _test(comparison.test),
        "claims": _claims(comparison),
        "control": None
        if comparison.control is None
        else {"objectives": list(comparison.control.labels), "test": _test(comparison.control.test)},
        "pairs": [_pair(pair) for pair in comparison.pairs],
        "distances": _by_measure({key: matrix.tolist() for key, matrix in comparison.distances.items()}),
        "joint_distances": None if comparison.joint is None else comparison.joint.tolist(),
        "map": None
        if comparison.map is None
        else {
            "coordinates": comparison.map.coordinates.tolist(),
            "explained": list(comparison.map.explained),
            "stress": comparison.map.stress,
        },
        "fingerprints": fingerprint_content(comparison.fingerprints),
    }


def _runs(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "name": run.name,
            "objective": run.objective,
            "seed": run.seed,
            "unit": run.unit,
            "folder": run.given,
            "run": run.trajectory.folder.name,
            "state": run.trajectory.state,
            "samples": len(run.trajectory.steps),
            "damaged_samples": sorted(run.trajectory.damaged),
            "members": [member.given for member in run.members],
            "interpolated_points": interpolated,
            "block": block,
        }
        for run, interpolated, block in zip(
            comparison.runs, comparison.alignment.interpolated, comparison.labelings.blocks, strict=True
        )
    ]


def _labelings(found: Labelings) -> dict[str, Any]:
    return {
        "possible": found.possible,
        "examined": len(found.labels),
        "exact": found.exact,
        "smallest_p": found.smallest_p,
        "blocks": len(set(found.blocks)),
    }


def _claims(comparison: Comparison) -> dict[str, Any]:
    together = onset_together(comparison)
    measures: dict[str, Any] = {}
    for measure in comparison.test.measures if comparison.test is not None else ():
        begins = onset_of(comparison, measure)
        layers = differing_layers(comparison, measure)
        if measure_differs(comparison, measure) or begins or layers:
            measures[measure] = {
                "differs": measure_differs(comparison, measure),
                "onset": None if begins is None else asdict(begins),
                "layers": layers,
            }
    return {
        "objectives_differ": objectives_differ(comparison),
        "onset": None if together is None else asdict(together),
        "measures": measures,
        "pairs": [
            {"objectives": list(pair.objectives), "measures": claimed}
            for pair in comparison.pairs
            if (claimed := [name for name in comparison.alignment.values if pair_differs(comparison, pair, name)])
        ],
    }


def _test(test: ObjectiveTest | None) -> dict[str, Any] | None:
    if test is None:
        return None
    return {
        "statistic": "R2 = SS_between / SS_total within blocks; for unequal groups, their own variances in its place",
        "correction": "step-down max-T (Westfall and Young) over measures, and over layers; maximum over steps",
        "together": {**_curve(test.together), "steps": _steps(test.together_steps)},
        "measures": {
            measure: {**_curve(found), "steps": _steps(test.steps[measure])} for measure, found in test.measures.items()
        },
        "layers": _by_measure({key: _curve(found) for key, found in test.layers.items()}),
    }


def _curve(found: CurveTest) -> dict[str, float]:
    return asdict(found)


def _steps(found: StepTest) -> dict[str, list[float | None]]:
    return {name: plain_numbers(getattr(found, name)) for name in ("r_squared", "p", "p_all")}


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "objectives": list(pair.objectives),
        "effects": _by_measure(
            {
                key: {
                    "mean": _effect(found.mean),
                    "last": _effect(found.last),
                    "energy_distance": found.energy_distance,
                }
                for key, found in pair.effects.items()
            }
        ),
        "differences": {measure: _difference(found) for measure, found in pair.differences.items()},
        "labelings": None if pair.labelings is None else _labelings(pair.labelings),
        "levels": asdict(pair.levels),
        "p_values_are_multiplied_by": pair.pairs_tested,
        "test": _test(pair.test),
    }


def _effect(sizes: EffectSizes) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(sizes).items()
        if value is not None
    }


def _difference(found: Difference) -> dict[str, Any]:
    return {name: plain_numbers(value) if isinstance(value, float) else value for name, value in asdict(found).items()}


def _by_measure(found: Mapping[Key, Any] | Mapping[tuple[str, int], Any]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for (measure, layer), value in found.items():
        nested.setdefault(measure, {})[MEDIAN if layer is None else str(layer)] = value
    return nested
