"""The groups of a run's probe: a table for people, and which charts the page draws of them."""

from __future__ import annotations

from typing import Any

from topo_callback.groups import Groups, pair_key
from topo_callback.page.markup import plain, table
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory
from topo_callback.wording import percent, rounded

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
    error = now.error(f"separation[{key}]", layer)
    shown = [
        first.number(f"separation[{key}]", layer),
        now.number(f"separation_by_chance[{key}]", layer),
        now.number(f"separation_p[{key}]"),
        now.number(f"h0_gap[{key}]", layer),
    ]
    said = [_NONE if each is None else rounded(each) for each in shown]
    value = rounded(apart[layer]) + ("" if error is None else f" \N{PLUS-MINUS SIGN} {rounded(2 * error)}")
    return [" and ".join(pair), str(layer), said[0], value, *said[1:]]


def _of_group(name: str, groups: Groups, now: Snapshot) -> list[str]:
    moved = now.number(f"next_token_tv[{name}].first")
    answers = _NONE if moved is None else percent(moved, now.error(f"next_token_tv[{name}].first"))
    medians = [now.median(each) for each in (f"drift[{name}].first", f"purity[{name}]", f"purity_by_chance[{name}]")]
    return [
        name,
        str(len(groups.members(name))),
        answers,
        *(_NONE if each is None else rounded(each) for each in medians),
    ]
