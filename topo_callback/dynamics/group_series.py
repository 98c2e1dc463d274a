"""What the samples of a run say of the groups of its probe, and when that is more than random labels do.

Each test asks the same relabelled prompts at every sample, and may be looked at after every one; its statistic is one
maximum over the layers of a sample. If the labels are random, the given labelling is one of 1,000 or more that are
alike, over the whole run at once. At the k-th look as many labellings may have been ahead as a budget allows that grows
with k / (k + 16) to the level, the given one among them or not. So the given one is ever ahead with a probability of at
most the level, however samples depend on each other and however many there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int16

from topo_callback.groups import Groups, is_of_groups, pair_key
from topo_callback.measures.groups import labellings_for
from topo_callback.records.snapshot import Snapshot, number_array

LEVELS = {"separates": 0.02, "merges": 0.01, "answers": 0.01}
"""Of each test over all pairs, layers and samples of a run, the last one asked of each group of a pair: together 5 %.
Pairs share it evenly."""
HALF = 16  # looks after which half of the budget may be spent


@dataclass(frozen=True)
class GroupSeries:
    """What the samples of a run say of its groups.

    Attributes:
        steps: of all samples, ascending.
        layers: the layers that were read.
        pairs: of names.
        separation, p_value: pair -> float64 [samples, layers]; NaN where missing. `p_value` has one more column, for
            all layers together.
        answers: name of a number -> group -> float64 [samples], how far its answers moved; NaN where missing.
        leading: test and pair, as `Snapshot.leading` has it -> one array for each sample, None where there is none.
    """

    steps: tuple[int, ...]
    layers: tuple[int, ...]
    pairs: tuple[tuple[str, str], ...]
    separation: Mapping[tuple[str, str], Float64[np.ndarray, "samples layers"]]
    p_value: Mapping[tuple[str, str], Float64[np.ndarray, "samples layers_and_all"]]
    answers: Mapping[str, Mapping[str, Float64[np.ndarray, " samples"]]]
    leading: Mapping[str, Sequence[Int16[np.ndarray, " leading"] | None]]

    @classmethod
    def of(cls, snapshots: Sequence[Snapshot], run: Mapping[str, Any], layers: tuple[int, ...]) -> GroupSeries | None:
        """Those of snapshots, ascending; None where run.json has no groups."""
        groups = Groups.of_run(run)
        if not groups:
            return None
        keys = {pair: pair_key(*pair) for pair in groups.pairs}
        return cls(
            steps=tuple(each.step for each in snapshots),
            layers=layers,
            pairs=groups.pairs,
            separation={pair: number_array(snapshots, f"separation[{key}]", layers) for pair, key in keys.items()},
            p_value={
                pair: number_array(snapshots, f"separation_p[{key}]", (*layers, None)) for pair, key in keys.items()
            },
            answers={
                label: {
                    name: number_array(snapshots, f"next_token_tv[{name}].{label}", (None,))[:, 0]
                    for name in groups.names
                }
                for label in ("previous", "first")
            },
            leading={
                name: [each.leading.get(name) for each in snapshots]
                for name in dict.fromkeys(name for each in snapshots for name in each.leading)
            },
        )

    def ahead_since(self, test: str, pair: tuple[str, str]) -> int | None:
        """The sample at which the given labels are first ahead of what random ones may be; None so far.

        Args:
            test: `separates` or `merges` of a pair; `answers`, whether those of the first group move further.
            pair: of names, for `answers` in either order.
        """
        looks = self.leading.get(f"{test}[{pair_key(*pair)}]", ())
        return first_ahead(looks, labellings_for(len(self.pairs)), LEVELS[test] / len(self.pairs))


def needed(name: str) -> bool:
    """Whether a number of a snapshot, by its name, is one that a `GroupSeries` takes."""
    return is_of_groups(name) and name.startswith(("separation[", "separation_p[", "next_token_tv["))


def first_ahead(looks: Sequence[Int16[np.ndarray, " leading"] | None], labellings: int, level: float) -> int | None:
    """The first look at which labelling 0 is among those that the budget lets be ahead.

    At every look the labellings with the largest values that were not ahead before fill the budget up. The labels of a
    look are treated alike but for ties, where the given one comes last, so this is exact for exchangeable labellings.
    No more than `level * labellings` are ever ahead: of a look, twice as many leading ones are all that can matter.

    Args:
        looks: of each sample the leading labellings, the largest value first; None for a sample without the test.
        labellings: how many there are.
        level: bound of the probability.
    """
    ahead: set[int] = set()
    look = 0
    for sample, leading in enumerate(looks):
        if leading is None:
            continue
        look += 1
        room = int(labellings * level * look / (look + HALF)) - len(ahead)
        now = [each for each in leading.tolist() if each not in ahead][: max(0, room)]
        if 0 in now:
            return sample
        ahead.update(now)
    return None
