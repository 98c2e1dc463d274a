"""The groups of a run's probe: a table for people, and which charts the page draws of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from topo_callback.dynamics.verdict import percent
from topo_callback.groups import Groups, pair_key
from topo_callback.page.wording import plain, rounded, table
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory

MOST_PAIRS = 6  # with a chart of their own
_NONE = "-"


def groups_content(trajectory: Trajectory) -> dict[str, Any] | None:
    """Names, the group of each prompt and pairs, as the charts need them; None without groups."""
    groups = trajectory.groups
    if not groups:
        return None
    pairs = groups.pairs[:MOST_PAIRS]
    return {
        "names": [[name, plain(name)] for name in groups.names],
        "of": list(groups.of_prompts),
        "pairs": [[pair_key(*pair), plain(" and ".join(pair))] for pair in pairs],
    }


def groups_table(trajectory: Trajectory) -> str:
    """Two tables, of pairs and of groups, at the newest sample; empty without groups."""
    groups = trajectory.groups
    if not groups:
        return ""
    first, now = trajectory.overview(trajectory.steps[0]), trajectory.overview(trajectory.steps[-1])
    pairs = [row for pair in groups.pairs if (row := _of_pair(pair, first, now))]
    kinds = [_of_group(name, groups, now) for name in groups.names]
    caption = (
        f"How far groups are apart at step {now.step}, where it is most: in standard deviations inside the groups, of "
        "prompts that had no part in the direction. Random labels stay below the next column in 95 of 100 cases"
    )
    heading = ("pair", "layer", "at the start", "now", "random labels", "p, all layers", "gap in H0")
    own = ("group", "prompts", "answers moved", "mean moved", "own neighbours", "by chance")
    found = table(heading, pairs, f"{caption}.") if pairs else ""
    return found + table(own, kinds, f"Each group at step {now.step}, since the start; medians over layers.")


def _of_pair(pair: tuple[str, str], first: Snapshot, now: Snapshot) -> list[str]:
    key = pair_key(*pair)
    apart = now.numbers.get(f"separation[{key}]", {})
    if not apart:
        return []
    layer = max(apart, key=lambda each: apart[each])
    error = now.errors.get(f"separation[{key}]", {}).get(layer)
    start = first.numbers.get(f"separation[{key}]", {}).get(layer)
    shown = [
        start,
        now.numbers.get(f"separation_by_chance[{key}]", {}).get(layer),
        now.numbers.get(f"separation_p[{key}]", {}).get(None),
        now.numbers.get(f"h0_gap[{key}]", {}).get(layer),
    ]
    said = [_NONE if each is None else rounded(each) for each in shown]
    value = rounded(apart[layer]) + ("" if error is None else f" \N{PLUS-MINUS SIGN} {rounded(2 * error)}")
    return [" and ".join(pair), str(layer), said[0], value, *said[1:]]


def _of_group(name: str, groups: Groups, now: Snapshot) -> list[str]:
    moved = now.numbers.get(f"next_token_tv[{name}].first", {}).get(None)
    error = now.errors.get(f"next_token_tv[{name}].first", {}).get(None)
    answers = _NONE if moved is None else percent(moved, error)
    medians = [
        float(np.median(list(row.values()))) if (row := now.numbers.get(f"{measure}[{name}]{since}", {})) else None
        for measure, since in (("drift", ".first"), ("purity", ""), ("purity_by_chance", ""))
    ]
    return [
        name,
        str(len(groups.members(name))),
        answers,
        *(_NONE if each is None else rounded(each) for each in medians),
    ]
