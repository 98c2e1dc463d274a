"""The tables of which measures deserve to be on, of real_model_once_scores.py, for RESULTS_real_model_once.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import real_model_once_scores as resi
from real_model_once_data import paragraph
from real_model_once_figures import draw_measures

from topo_callback import TopologyConfig
from topo_callback.measures import pair_measures

NUMBERS_OF = {
    "wasserstein": (
        "wasserstein_h0", "wasserstein_h0_raw", "wasserstein_h1", "wasserstein_h1_per_bar", "wasserstein_h1_raw",
    ),
    "rtd_lite": ("rtd_lite", "srtd_lite", "max_rtd_lite"),
    "tree_similarity": ("nts_e", "nts_m"),
    "cka": ("cka", "cka_biased"),
    "survival": ("survival_h1",),
    "survival_gaussian": ("survival_h1_gaussian",),
    "bottleneck": ("bottleneck_h0", "bottleneck_h1"),
    "sliced_wasserstein": ("sliced_wasserstein_h0", "sliced_wasserstein_h1"),
}  # fmt: skip
"""Of the measures that have several numbers, or one of another name."""
MODELS = {"smollm2": "SmolLM2", "gemma": "gemma-3"}
PROMPTS = ("prose", "requests")
LEVEL = 0.05
Column = Mapping[str, float]


def test_scores(scores: Mapping[str, Any]) -> dict[str, dict[str, Column]]:
    """Test -> column -> number -> score, the higher the better."""
    found: dict[str, dict[str, Column]] = {}
    for model, title in MODELS.items():
        found[f"layers of {title}"] = {
            f"{kind}: {what}": {name: float(np.mean(values)) for name, values in _blocks(scores, model, kind, place)}
            for kind in PROMPTS
            for place, what in enumerate(("triples", "correlation"))
        }
    augmented = scores["augmented"]
    found["changed words"] = {
        what: {name: rows[place][0] for name, rows in augmented.items()} for place, what in ((0, "order"), (2, "AUPRC"))
    }
    for kind in resi.KINDS:
        found[kind] = {"AUPRC": scores[kind]["score"]}
    return found


def _blocks(scores: Mapping[str, Any], model: str, kind: str, place: int) -> Iterator[tuple[str, list[float]]]:
    blocks = [values for name, values in scores["layers"].items() if name.startswith(f"{model}, {kind}")]
    for name in blocks[0]:
        yield name, [block[name][place] for block in blocks]


def measure_lines(parts: Mapping[str, Any]) -> Iterator[str]:
    scores = parts["scores"]
    tests = test_scores(scores)
    telling = {test: columns for test, columns in tests.items() if test not in resi.KINDS or _told(scores, test)}
    ranks = {name: _ranks(name, telling) for name in scores["label"]["score"]}
    names = sorted(ranks, key=lambda name: float(np.mean(ranks[name])))
    default = {number for measure in default_measures() for number in NUMBERS_OF.get(measure, (measure,))}
    draw_measures(tests, names, default, {kind: scores[kind]["corrected_p"] for kind in resi.KINDS})
    yield "## Which measures deserve to be on"
    yield ""
    yield from (resi.__doc__ or "").strip().splitlines()[2:]
    yield ""
    yield "![Scores of all pair measures](RESULTS_real_model_once_measures.png)"
    yield ""
    yield from _layer_lines(scores, names)
    yield from _run_lines(parts.get("runs", {}), scores, names)
    yield from _rank_lines(telling, names, ranks, default)


def _layer_lines(scores: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    yield "Order of layers: mean of two blocks of prompts, and half of their difference."
    yield ""
    sets = [(model, kind, place) for model in MODELS for kind in PROMPTS for place in (0, 1)]
    titles = [f"{MODELS[model]}, {kind}: {('triples', 'correlation')[place]}" for model, kind, place in sets]
    yield "| number | " + " | ".join(titles) + " |"
    yield "|---|" + "---|" * len(sets)
    columns = [dict(_blocks(scores, *each)) for each in sets]
    for name in names:
        cells = [f"{np.mean(column[name]):.3f} ± {np.ptp(column[name]) / 2:.3f}" for column in columns]
        yield f"| `{name}` | " + " | ".join(cells) + " |"
    yield ""


def _run_lines(runs: Mapping[str, Any], scores: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    for kind in resi.KINDS:
        said = []
        for share in resi.SHARES:
            right = [facts["accuracy"] for name, facts in runs.items() if name.startswith(f"{kind}-{share}-")]
            said.append(f"{share} %: {np.mean(right):.2f} ± {np.std(right, ddof=1) / np.sqrt(len(right)):.2f}")
        yield paragraph(f"`{kind}`, held-out accuracy by share, mean and standard error: {', '.join(said)}.")
    yield ""
    yield paragraph(
        "Changed words and fine-tunings: means of layers 10, 20 and 30; ± is the standard error of the jackknife over "
        "draws or seeds. p: conditions permuted within seeds "
        f"{resi.PERMUTED} times, by the largest AUPRC of all {len(names)} numbers. AUPRC of random similarities: "
        f"changed words {resi.chance(4, resi.SEEDS):.3f}, fine-tunings {resi.chance(5, resi.SEEDS):.3f}."
    )
    yield ""
    kinds = "".join(f"{kind}: AUPRC | p | " for kind in resi.KINDS)
    yield f"| number | changed words: order | AUPRC | {kinds}".rstrip()
    yield "|---|---|---|" + "---|---|" * len(resi.KINDS)
    for name in names:
        augmented = scores["augmented"][name]
        cells = [f"{augmented[place][0]:.3f} ± {augmented[place][1]:.3f}" for place in (0, 2)]
        for kind in resi.KINDS:
            found = scores[kind]
            cells += [f"{found['score'][name]:.3f} ± {found['error'][name]:.3f}", f"{found['corrected_p'][name]:.3f}"]
        yield f"| `{name}` | " + " | ".join(cells) + " |"
    yield ""
    for kind in resi.KINDS:
        yield paragraph(_said_of(kind, scores))
        yield ""


def _said_of(kind: str, scores: Mapping[str, Any]) -> str:
    """Which numbers tell conditions of a kind of fine-tunings apart, and whether more than CKA."""
    found, told = scores[kind], _told(scores, kind)
    corrected = found["corrected_p"]
    if not told:
        least = min(corrected, key=corrected.get)
        return f"`{kind}`: no number is above chance; the least p is {corrected[least]:.3f} (`{least}`)."
    said = f"`{kind}`: {len(told)} of {len(corrected)} numbers are above chance: " + ", ".join(f"`{n}`" for n in told)
    if kind == "noisy":
        apart = [
            f"`{name}` {found['above_cka'][name]:+.3f} ({found['above_cka_low'][name]:+.3f} to "
            f"{found['above_cka_high'][name]:+.3f}; p {found['above_cka_p'][name]:.3f})"
            for name in told
            if name != "cka"
        ]
        layers = [
            f"`{name}` " + ", ".join(f"{found[str(layer)][name]:.3f}" for layer in resi.READ)
            for name in dict.fromkeys((*told, "cka", "mutual_knn"))
        ]
        more = ", ".join(
            f"`{name}` {min(1.0, 2 * corrected[name]):.3f} ({min(1.0, 3 * corrected[name]):.3f})" for name in told
        )
        said += (
            ". Times two, for the two attempts at a shortcut (times three, for all kinds of fine-tunings), their p are "
            f"{more}. AUPRC less that of CKA, 95 % by the "
            "jackknife over seeds, and the share of the same labellings, in which neither tells anything, that has the "
            f"two as far apart: {', '.join(apart)}. In layers 10, 20 and 30: {'; '.join(layers)}"
        )
    return said + "."


def _rank_lines(
    telling: Mapping[str, Mapping[str, Column]],
    names: Sequence[str],
    ranks: Mapping[str, np.ndarray],
    default: set[str],
) -> Iterator[str]:
    columns = [column for found in telling.values() for column in found.values()]
    yield paragraph(
        f"Ranks among all {len(names)} numbers, 1 the best: mean over the columns of a test, and over the "
        f"{len(telling)} tests in which anything was told; ± is the standard error over these tests. Below CKA: in how "
        f"many of the {len(columns)} columns."
    )
    yield ""
    yield "| number | default | " + " | ".join(telling) + " | mean | less that of CKA | below CKA |"
    yield "|---|---|" + "---|" * (len(telling) + 3)
    below = {name: sum(column[name] < column["cka"] for column in columns) for name in names}
    for name in names:
        cells = [f"{rank:.1f}" for rank in ranks[name]]
        cells += [_mean(ranks[name]), "" if name == "cka" else _mean(ranks[name] - ranks["cka"], "+"), f"{below[name]}"]
        yield f"| `{name}` | {'yes' if name in default else 'no'} | " + " | ".join(cells) + " |"
    yield ""
    worst = [name for name in names if below[name] == len(columns)]
    shown = {
        title: ", ".join(f"`{name}`" for name in worst if (name in default) == wanted) or "none"
        for title, wanted in (("yes", True), ("no", False))
    }
    yield paragraph(
        f"Below CKA in every column, of the numbers that are computed by default: {shown['yes']}; of the others: "
        f"{shown['no']}."
    )


def _mean(values: np.ndarray, sign: str = "") -> str:
    return f"{values.mean():{sign}.1f} ± {values.std(ddof=1) / np.sqrt(len(values)):.1f}"


def _told(scores: Mapping[str, Any], kind: str) -> list[str]:
    """The numbers that find runs of one condition more alike than chance does."""
    return [name for name, value in scores[kind]["corrected_p"].items() if value <= LEVEL]


def default_measures() -> list[str]:
    return [name for name in TopologyConfig().measures if name in pair_measures]


def _ranks(name: str, tests: Mapping[str, Mapping[str, Column]]) -> np.ndarray:
    """Mean rank in each test."""
    return np.array([np.mean([rank_of(name, column) for column in columns.values()]) for columns in tests.values()])


def rank_of(name: str, scores: Column) -> int:
    """1 for the highest; what is missing is last."""
    own = scores[name] if np.isfinite(scores[name]) else -np.inf
    return 1 + sum((value if np.isfinite(value) else -np.inf) > own for value in scores.values())
