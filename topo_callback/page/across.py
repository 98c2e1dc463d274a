"""Several runs in one page: the comparison of objectives, or curves beside each other, or why they are not compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from topo_callback.comparison.alignment import Alignment, align
from topo_callback.comparison.caveats import notes
from topo_callback.comparison.comparison import Comparison, compare_runs
from topo_callback.comparison.fingerprint_tables import cosine, fingerprint_sentences, fingerprint_table
from topo_callback.comparison.fingerprints import Fingerprints, compare_fingerprints
from topo_callback.comparison.runs import check_runs, read_runs
from topo_callback.comparison.significance import onset_of
from topo_callback.comparison.tables import measure_table, pair_table, shown_measures, summary
from topo_callback.errors import ConfigurationError
from topo_callback.figures.labels import label
from topo_callback.page.markup import html_table, items, number, plain, safe
from topo_callback.reading_conditions import reading_notes
from topo_callback.records.trajectory import Trajectory

PANELS = 6
_CHARTS = (
    '<div id="comparison-curves" class="panels"></div><div class="pair"><div id="comparison-distances"></div>'
    '<div id="comparison-map"></div></div>'
)
_FIRST = ("wasserstein_h1.first", "mutual_knn.first", "depth_similarity_h1", "betti_h1", "wasserstein_h1.previous")


@dataclass(frozen=True)
class Across:
    """The comparison section.

    Attributes:
        markup: its words and tables as HTML.
        content: what its charts draw; empty where nothing can be compared.
    """

    markup: str
    content: Mapping[str, Any] = field(default_factory=dict)


def across(trajectories: Sequence[Trajectory], objectives: Sequence[str] | None, axis: str) -> Across:
    """Compare runs; what the comparison refuses is said in its words.

    Args:
        trajectories: at least two runs.
        objectives: the objective of each run, for tests of objective against seed; None: curves only.
        axis: step, progress or clock.
    """
    groups: dict[str, list[str | Path]] = {}
    names = objectives if objectives is not None else _run_names(trajectories)
    for trajectory, name in zip(trajectories, names, strict=True):
        groups.setdefault(name, []).append(trajectory.folder)
    notes_of_reading = reading_notes(
        [(name, each.run) for name, each in zip(_run_names(trajectories), trajectories, strict=True)]
    )
    differing = items(notes_of_reading) if notes_of_reading else ""
    alike = ""
    drawn: dict[str, Any] = {}
    try:
        runs = read_runs(groups, independent=objectives is None)
        alike, drawn = _fingerprints(compare_fingerprints(runs))
        check_runs(runs)
        if objectives is None:
            words = "Curves of the runs beside each other, without a test. Give runs as OBJECTIVE=FOLDER,FOLDER to "
            words += "have the objectives tested against the seeds."
            alignment = align(runs, axis)
            labels = [run.objective for run in runs]
            return Across(
                f"<p>{safe(words, 400)}</p>{differing}{_CHARTS}{alike}",
                _curves(alignment, _common(alignment), labels, labels, {}) | drawn,
            )
        comparison = compare_runs(runs, axis=axis)
    except ConfigurationError as error:
        words = f"These runs are not compared: {plain(error, 500)}."
        return Across(f'<p class="warning" role="note">{safe(words, 600)}</p>{differing}{alike}', drawn)
    return Across(_words(comparison) + alike, _drawn(comparison) | drawn)


def _fingerprints(found: Fingerprints | None) -> tuple[str, dict[str, Any]]:
    """Which runs learned alike: words and table as HTML, and what the charts draw."""
    if found is None or len(found.runs) < 2:
        return "", {}
    known = list(dict.fromkeys(run.objective for run in found.runs))
    order = sorted(range(len(found.runs)), key=lambda run: known.index(found.runs[run].objective))
    names = [plain(found.runs[run].name, 80) for run in order]
    drawn: dict[str, Any] = {
        "objectives": [plain(name, 60) for name in known],
        "runs": [{"name": plain(run.name, 80), "objective": known.index(run.objective)} for run in found.runs],
        "names": names,
        "rows": [[number(value) for value in row] for row in found.cosines[np.ix_(order, order)].tolist()],
        "said": [[cosine(found, run, other) for other in order] for run in order],
    }
    if found.map is not None:
        drawn["map"] = {
            "points": found.map.coordinates.tolist(),
            "explained": list(found.map.explained),
            "stress": number(found.map.stress),
        }
    words = f"<h3>Which runs learned alike</h3>{items(fingerprint_sentences(found))}"
    charts = '<div class="pair"><div id="alike-cosines"></div><div id="alike-map"></div></div>'
    return f"{words}{charts}{html_table(fingerprint_table(found))}", {"alike": drawn}


def _run_names(trajectories: Sequence[Trajectory]) -> list[str]:
    """Names that tell the runs apart."""
    return [f"{number}: {trajectory.folder.name}" for number, trajectory in enumerate(trajectories, 1)]


def _common(alignment: Alignment) -> list[str]:
    headed = [name for name in alignment.values if label(name).title != name]
    return [name for name in dict.fromkeys([*_FIRST, *headed]) if name in alignment.values][:PANELS]


def _words(comparison: Comparison) -> str:
    tables = f"<h3>Tests</h3>{html_table(measure_table(comparison))}"
    if shown_measures(comparison, 1):
        tables += html_table(pair_table(comparison))
    first, *others = summary(comparison)
    words = f'<p class="verdict"><strong>{safe(first, 400)}</strong></p>{items(others)}'
    return f"{words}{_CHARTS}{tables}<h3>Notes</h3>{items(notes(comparison))}"


def _drawn(comparison: Comparison) -> dict[str, Any]:
    objectives = [run.objective for run in comparison.runs]
    names = [run.name for run in comparison.runs]
    measures = shown_measures(comparison, PANELS)
    begins = {measure: found.first for measure in measures if (found := onset_of(comparison, measure)) is not None}
    content = _curves(comparison.alignment, measures, objectives, names, begins)
    if comparison.joint is not None and comparison.map is not None:
        order = sorted(range(len(names)), key=lambda run: comparison.objectives.index(objectives[run]))
        matrix = comparison.joint[np.ix_(order, order)]
        content["distances"] = {
            "names": [plain(names[run], 60) for run in order],
            "rows": [[number(value) for value in row] for row in matrix.tolist()],
        }
        content["map"] = {
            "points": comparison.map.coordinates.tolist(),
            "explained": list(comparison.map.explained),
            "stress": number(comparison.map.stress),
        }
    return content


def _curves(
    alignment: Alignment,
    measures: Sequence[str],
    objectives: Sequence[str],
    names: Sequence[str],
    begins: Mapping[str, float],
) -> dict[str, Any]:
    known = list(dict.fromkeys(objectives))
    return {
        "axis": alignment.axis,
        "unit": alignment.unit,
        "positions": alignment.positions.tolist(),
        "objectives": [plain(name, 60) for name in known],
        "runs": [
            {"name": plain(name, 80), "objective": known.index(objective)}
            for name, objective in zip(names, objectives, strict=True)
        ],
        "panels": [
            {
                "measure": measure,
                "title": plain(label(measure).title),
                "unit": plain(label(measure).unit),
                "values": [[number(v) for v in row] for row in alignment.values[measure][None].tolist()],
                "onset": number(begins.get(measure)),
            }
            for measure in measures
            if None in alignment.values[measure]
        ],
    }
