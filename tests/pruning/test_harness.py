"""lm-evaluation-harness on a cut model: its own numbers by hand. Runs where lm-eval is installed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CORPUS, tiny_llama, tiny_tokenizer

from topo_callback.errors import ConfigurationError
from topo_callback.pruning import cut_layers
from topo_callback.pruning.evaluation import harness_scores

pytest.importorskip("lm_eval")
# the harness and what it loads use what others have deprecated, and leave files open
pytestmark = pytest.mark.filterwarnings("default")
TEXTS = [text for text in CORPUS.splitlines() if text.strip()][:8]


def bits(model: Any, tokenizer: Any, text: str) -> float:
    """-log2 of the probability of a text after the end-of-text token."""
    tokens = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
    with torch.no_grad():
        found = torch.log_softmax(model(tokens, use_cache=False).logits[0, :-1].double(), -1)
    return -float(found.gather(1, tokens[0, 1:, None]).sum()) / math.log(2)


def test_a_task_is_run_on_a_cut_model(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    cut = cut_layers(tiny_llama(tokenizer, layers=4).eval(), (2, 3))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    task = {
        "task": "own_text",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
    }
    found = harness_scores(cut, tokenizer, [task], limit=5)
    expected = sum(bits(cut, tokenizer, text) for text in TEXTS[:5]) / sum(len(text.encode()) for text in TEXTS[:5])
    assert set(found) == {"own_text byte_perplexity", "own_text bits_per_byte"}
    assert found["own_text bits_per_byte"] == pytest.approx(expected, rel=1e-4)
    assert found["own_text byte_perplexity"] == pytest.approx(2**expected, rel=1e-4)


def test_a_task_that_is_not_there_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(ConfigurationError, match="lm-evaluation-harness could not run no_such_task"):
        harness_scores(tiny_llama(tokenizer).eval(), tokenizer, ["no_such_task"])
