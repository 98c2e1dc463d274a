"""The tables of a comparison, and all of it on the terminal: the verdict first, then measures, pairs and notes."""

from __future__ import annotations

import math

from rich.console import Console

from topo_callback.comparison.caveats import named, notes, position, probability
from topo_callback.comparison.comparison import Comparison, Pair
from topo_callback.comparison.effects import SEEDS_FOR_INTERVAL, EffectSizes
from topo_callback.comparison.fingerprint_tables import fingerprint_sentences, fingerprint_table
from topo_callback.comparison.fingerprints import Fingerprints
from topo_callback.comparison.own_spread import LEVEL
from topo_callback.comparison.significance import (
    Onset,
    differing_layers,
    measure_differs,
    objectives_differ,
    onset_of,
    onset_together,
    pair_differs,
    pair_p,
    ranked_measures,
)
from topo_callback.figures.labels import label
from topo_callback.tables import Column, Table, rich_table
from topo_callback.terminal import TextStream

MEASURES_SHOWN = 12
MEASURES_OF_A_PAIR = 4


def write_tables(comparison: Comparison, stream: TextStream) -> None:
    """Write the comparison as text; names from outside are never read as markup."""
    console = _console(stream)
    for line in summary(comparison):
        console.print(line)
    console.print()
    console.print(rich_table(measure_table(comparison)))
    hidden = len(ranked_measures(comparison)) - MEASURES_SHOWN
    if hidden > 0:
        console.print(f"{hidden} more measures are in comparison.json.")
    console.print()
    console.print(rich_table(pair_table(comparison)))
    console.print()
    if comparison.fingerprints is not None:
        _print_fingerprints(comparison.fingerprints, console)
    for note in notes(comparison):
        console.print(f"- {note}")


def write_fingerprints(found: Fingerprints, stream: TextStream) -> None:
    """Write what fingerprints say alone, where the numbers of the runs cannot be compared."""
    _print_fingerprints(found, _console(stream))


def _console(stream: TextStream) -> Console:
    width = None if getattr(stream, "isatty", lambda: False)() else 120
    return Console(file=stream, markup=False, highlight=False, width=width)  # type: ignore[arg-type]


def _print_fingerprints(found: Fingerprints, console: Console) -> None:
    console.print(rich_table(fingerprint_table(found)))
    for line in fingerprint_sentences(found):
        console.print(f"- {line}")
    console.print()


def shown_measures(comparison: Comparison, most: int) -> list[str]:
    """The three strongest, then those with a heading of their own, then the rest, each by strength."""
    ranked = ranked_measures(comparison)
    headed = [measure for measure in ranked if label(measure).title != measure]
    return list(dict.fromkeys([*ranked[:3], *headed, *ranked]))[:most]


def summary(comparison: Comparison) -> list[str]:
    """The verdict, what was compared, and what it rests on."""
    seeds: dict[str, list[str]] = {name: [] for name in comparison.objectives}
    for run in comparison.runs:
        seeds[run.objective].append("?" if run.block is None else str(run.block))
    units = any(run.unit is not None for run in comparison.runs)
    what, which = ("means of runs", "units") if units else ("runs", "seeds")
    of = "; ".join(f"{name} ({len(found)} {what}, {which} {named(found)})" for name, found in seeds.items())
    lines = [*comparison.verdict.sentences, f"{sum(len(run.each) for run in comparison.runs)} runs: {of}"]
    if comparison.test is None:
        return lines
    together = comparison.test.together
    lines.append(f"All measures together: R2 = {together.r_squared:.2f}, p = {probability(together.p)}.")
    if objectives_differ(comparison):
        begins = onset_together(comparison)
        lines.append(
            "No single point shows it by itself."
            if begins is None
            else f"They are distinguishable from {_onset(begins, comparison)}."
        )
    if comparison.control is not None and comparison.control.test is not None:
        control = comparison.control.test.together
        lines.append(
            f"Control, the same runs with shuffled objectives: R2 = {control.r_squared:.2f}, "
            f"p = {probability(control.p)}."
        )
    return lines


def _onset(begins: Onset, comparison: Comparison) -> str:
    axis = comparison.alignment.axis
    text = f"{position(begins.first, axis)} on (p = {probability(begins.p)}, corrected for the search)"
    if begins.lasting is None:
        return f"{text}, but not at the end"
    return (
        text if begins.lasting == begins.first else f"{text}, without a break from {position(begins.lasting, axis)} on"
    )


def measure_table(comparison: Comparison) -> Table:
    """What is tested of each measure; without rows where no two runs differ."""
    table = Table(
        "Measures (median over layers)",
        (
            Column("measure"),
            *(Column(heading, "number") for heading in ("R2", "p", "p, all measures")),
            Column("distinguishable from"),
            Column("layers that differ"),
        ),
        f"* differs at {100 * LEVEL:g} % after correction; R2: share of the variance that objectives explain",
    )
    for measure in shown_measures(comparison, MEASURES_SHOWN):
        assert comparison.test is not None
        found = comparison.test.measures[measure]
        begins = onset_of(comparison, measure)
        table.add(
            measure,
            f"{found.r_squared:.2f}",
            probability(found.p),
            probability(found.p_all) + ("*" if measure_differs(comparison, measure) else " "),
            position(begins.first, comparison.alignment.axis) if begins else "-",
            " ".join(map(str, differing_layers(comparison, measure))) or "-",
        )
    return table


def pair_table(comparison: Comparison) -> Table:
    """How far each two objectives are apart; only headings where no two runs differ."""
    table = Table(
        "Pairs of objectives (each run's mean over the points)",
        (
            Column("measure"),
            Column("difference", "whole"),
            Column("excluded from", "number"),
            Column("Hedges' g", "whole"),
            Column("Cliff's delta", "whole"),
            Column("p, corrected", "number"),
        ),
        "positive: the first is larger; difference: of the means, in units of the measure, with intervals that hold "
        "for all pairs and measures at 95 %; excluded from: the smallest size that this measure excludes at 95 %, in "
        f"spreads between seeds; other brackets: 95 % bootstrap intervals, from {SEEDS_FOR_INTERVAL} seeds on; p: for "
        "all pairs and measures",
    )
    for pair in comparison.pairs:
        table.add(f"{pair.objectives[0]} / {pair.objectives[1]}")
        for measure in shown_measures(comparison, MEASURES_OF_A_PAIR):
            effects = pair.effects[measure, None]
            table.add(
                measure,
                *_difference(pair, measure),
                with_interval(effects.mean, "hedges_g"),
                with_interval(effects.mean, "cliffs_delta"),
                _pair_p(comparison, pair, measure),
            )
    return table


def _difference(pair: Pair, measure: str) -> tuple[str, str]:
    found = pair.differences.get(measure)
    if found is None:
        return "-", "-"
    text = f"{found.difference:+.3g}"
    if found.interval is not None:
        text += f" [{found.interval[0]:+.3g}, {found.interval[1]:+.3g}]"
    return text, f"{found.excluded:.2g}" if math.isfinite(found.excluded) else "none"


def _pair_p(comparison: Comparison, pair: Pair, measure: str) -> str:
    p = pair_p(pair, measure)
    if p is None:
        return "not tested"
    return probability(p) + ("*" if pair_differs(comparison, pair, measure) else " ")


def with_interval(sizes: EffectSizes, name: str) -> str:
    """An effect size in words, with its interval where there is one."""
    value, interval = getattr(sizes, name), getattr(sizes, f"{name}_interval")
    if value is None:
        return "undefined"
    return f"{value:+.2f}" + ("" if interval is None else f" [{interval[0]:+.2f}, {interval[1]:+.2f}]")
