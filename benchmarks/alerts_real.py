"""Events in real runs: leave-one-out false alarms of quiet runs, and what a switch of the data is called.

`benchmarks/fine_tuning.py train --work FOLDER` makes the runs. Every quiet run is judged alone (sequential) and
against the other quiet ones (calibrated); every switched run alone and against all quiet ones. Prints the lines for
RESULTS_alerts.md; takes five minutes of one processor.

    python benchmarks/alerts_real.py FOLDER/runs
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import binomtest

from topo_callback import Trajectory
from topo_callback.dynamics import Event, References, Series, find_events

QUIET = "helpful-constant-seed*"
MEASURES = ("wasserstein_h1", "wasserstein_h0", "mutual_knn", "cka", "distance_change", "survival_h1")


def alarms(series: Series, references: Sequence[Series], measure: str) -> dict[str, Event]:
    """The onset of each level, where there is one."""
    found = find_events(series, References.of(references), measure=measure).events
    return {event.level: event for event in found if event.kind == "onset"}


def share(count: int, total: int) -> str:
    interval = binomtest(count, total).proportion_ci(method="exact")
    return f"{count} of {total} ({100 * interval.low:.0f}-{100 * interval.high:.0f} %)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    folder: Path = parser.parse_args().runs

    def load(pattern: str) -> dict[str, Series]:
        found = {path.name: Trajectory.load(path) for path in sorted(folder.glob(pattern))}
        # every seed has data of its own, which references refuse
        finished = {name: Series.of(each) for name, each in found.items() if each.state == "finished"}
        return {name: dataclasses.replace(series, identity={}) for name, series in finished.items()}

    quiet = {name: series for name, series in load(QUIET).items() if name.endswith("every4")}
    switched = {kind: load(f"{kind}-constant-seed*") for kind in ("helpful-to-harmless", "helpful-to-questions")}
    print(f"{len(quiet)} quiet runs of {len(next(iter(quiet.values())).steps)} samples")
    print("\n| displacement | runs | sequential | calibrated | first known at (calibrated) |\n|---|---|---|---|---|")
    for measure in MEASURES:
        groups = {"quiet, leave one out": quiet, **switched}
        for title, runs in groups.items():
            found = []
            for name, series in runs.items():
                others = [each for other, each in quiet.items() if other != name]
                found.append(alarms(series, others, measure))
            known = sorted(each["calibrated"].known_at for each in found if "calibrated" in each)
            counts = [share(sum(level in each for each in found), len(found)) for level in ("sequential", "calibrated")]
            print(f"| {measure} | {title} | {counts[0]} | {counts[1]} | {', '.join(map(str, known)) or '-'} |")


if __name__ == "__main__":
    main()
