"""`topo-callback prune`: the table, the written model, and refusals as one line that leave nothing behind."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import tiny
from tiny import CORPUS, tiny_llama, tiny_tokenizer
from torch import Tensor
from trajectories import write_trajectory
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel, T5Config

from topo_callback.cli import build_parser
from topo_callback.errors import TopologyError
from topo_callback.pruning import cut_layers

METHODS = ["persistence-v1", "persistence-icml", "angular-distance", "block-influence"]


def prune(*arguments: Any) -> str:
    """Run the command; the one line it refuses with, or nothing."""
    given = build_parser().parse_args(["prune", *map(str, arguments)])
    try:
        given.run(given)
    except TopologyError as error:
        return " ".join(str(error).split())
    return ""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of six blocks with its tokenizer, prompts in both formats, and a text."""
    folder = tmp_path_factory.mktemp("files")
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer, layers=6)
    with torch.no_grad():  # random blocks all but the same; what the middle ones add is small, as after training
        for layer in (3, 4, 5):
            model.model.layers[layer - 1].self_attn.o_proj.weight *= 0.1
            model.model.layers[layer - 1].mlp.down_proj.weight *= 0.1
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    texts = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(30)]
    (folder / "probe.txt").write_text("\n\n".join(texts) + "\n")
    (folder / "probe.jsonl").write_text(
        "".join(json.dumps({"prompt": text, "completion": " x"}) + "\n" for text in texts)
    )
    (folder / "text.txt").write_text(CORPUS)
    return folder


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(5, 25)[None], use_cache=False).logits  # type: ignore[no-any-return]


def test_the_table_and_the_pruned_model(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "deep" / "pruned"
    text = ("--text", files / "text.txt", "--window", 32, "--text-tokens", 200)
    written = ("--method", "block-influence", "--count", 2, "--output-dir", output)
    assert prune(files / "model", "--prompts", files / "probe.txt", *text, *written) == ""
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines() if line.startswith(tuple(METHODS))]
    assert [row[0] for row in rows] == ["persistence-v1"] * 2 + ["persistence-icml"] * 2 + METHODS[2:]
    assert "30 prompts, 5 neighbours, persistence similarity of the norms after attention and the final norm" in (
        printed.out
    )
    assert "windows of 32, stride 16" in printed.out
    assert "model.layers.(i-1)" in printed.out
    assert "whole model" in printed.out
    record = json.loads((output / "pruning.json").read_text())
    assert record["method"] == "block-influence"
    assert len(record["layers"]) == 2
    assert set(record["layers"]) < {3, 4, 5}
    assert record["perplexity"]["before"] != record["perplexity"]["after"]
    assert f"{record['perplexity']['after']:.2f}" in printed.out
    loaded = AutoModelForCausalLM.from_pretrained(output)
    whole = AutoModelForCausalLM.from_pretrained(files / "model")
    torch.testing.assert_close(logits(loaded), logits(cut_layers(whole, record["layers"])))
    tokenizer = AutoTokenizer.from_pretrained(output)
    ids = tokenizer("What is the", return_tensors="pt").input_ids
    made = loaded.generate(ids, max_new_tokens=4, do_sample=False)
    assert tokenizer.decode(made[0])
    assert [path.name for path in output.parent.iterdir()] == ["pruned"]
    assert str(files) not in (output / "config.json").read_text().replace(str(files / "model"), "")


@pytest.mark.slow
def test_rows_give_the_same_choice_as_their_prompts(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for probe in ("probe.txt", "probe.jsonl"):
        assert prune(files / "model", "--prompts", files / probe, "--tap", "block") == ""
        tables.append(capsys.readouterr().out)
    assert "persistence similarity of the outputs of blocks" in tables[0]
    assert tables[0] == tables[1]


def test_layers_by_hand(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(files / "model", "--layers", "2,4-5", "--output-dir", tmp_path / "pruned") == ""
    assert "2, 4-5" in capsys.readouterr().out
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "pruned").config.num_hidden_layers == 3


def test_a_trajectory_needs_no_model(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_trajectory(tmp_path / "run", steps=(0, 4), layers=(1, 2, 3, 4, 5, 6))
    run = folder.read_run()
    run["model"]["depth"], run["reading"] = 6, {"tap": "block"}
    folder.write_run(run)
    assert prune("--run", folder.path) == ""
    printed = capsys.readouterr().out
    assert f"recorded at step 4 of {folder.path.name}" in printed
    assert "persistence-icml" in printed
    assert "angular-distance" not in printed
    assert prune("--run", folder.path, "--json") == ""
    (first, *_), depth = (found := json.loads(capsys.readouterr().out))["cuts"], found["depth"]
    assert (first["method"], first["scores"]["step"], depth) == ("persistence-v1", 4, 6)
    assert prune(files / "model", "--run", folder.path, "--step", 0, "--output-dir", tmp_path / "pruned") == ""
    assert json.loads((tmp_path / "pruned" / "pruning.json").read_text())["scores"]["step"] == 0
    tiny_llama(tiny_tokenizer(), layers=2).save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    assert "has 2 blocks, the model of the trajectory has 6" in prune(tmp_path / "other", "--run", folder.path)
    refusal = prune(
        files / "model", "--run", folder.path, "--method", "angular-distance", "--output-dir", tmp_path / "x"
    )
    assert "needs the activations" in refusal


@pytest.mark.slow
def test_an_adapter_is_merged(files: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(files / "model")
    adapted = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    assert prune(tmp_path / "adapter", "--layers", "4", "--output-dir", tmp_path / "pruned") == ""
    expected = cut_layers(adapted.merge_and_unload(), (4,)).eval()
    pruned = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned").eval()
    torch.testing.assert_close(logits(pruned), logits(expected))
    assert not torch.allclose(
        logits(pruned), logits(cut_layers(AutoModelForCausalLM.from_pretrained(files / "model"), (4,)))
    )
    assert (tmp_path / "pruned" / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prompts", "PROBE"), "--prompts needs a model"),
        (("--prompts-of", "PROBE"), "--prompts-of needs a model"),
        (("MODEL", "--layers", "1"), "add --text to measure it, or --output-dir to write it"),
        (("MODEL", "--prompts", "PROBE", "--step", "1"), "it needs --run"),
        (("MODEL", "--prompts", "PROBE", "--threshold", "1.5"), "--threshold 1.5; accepted: above 0 and at most 1"),
        (("MODEL", "--prompts", "PROBE", "--lm-eval", "mmlu"), "--lm-eval comes beside perplexities; add --text"),
        (("MODEL", "--prompts", "nowhere.txt"), "prompts nowhere.txt cannot be read"),
        (("MODEL", "--prompts", "PROBE", "--most-prompts", "1"), "a cloud needs at least 2"),
        (("MODEL", "--prompts", "PROBE", "--neighbours", "30"), "30 neighbours of 30 different prompts"),
        (("MODEL", "--prompts", "PROBE", "--count", "6"), "6 layers to cut; accepted: 1 to 5"),
        (("MODEL", "--prompts", "PROBE", "--text", "nowhere.txt"), "text nowhere.txt cannot be read"),
        (("MODEL", "--layers", "7", "--output-dir", "OUT"), "layer 7 cannot be cut; this model has blocks 1 to 6"),
        (("MODEL", "--layers", "1-6", "--output-dir", "OUT"), "all 6 blocks would be cut"),
        (("MODEL", "--layers", "1", "--output-dir", "THERE"), "is there already"),
        (("MODEL", "--layers", "1", "--output-dir", "OUT", "--device", "nonsense"), "could not be loaded"),
        (("no/such-model", "--layers", "1", "--output-dir", "OUT"), "model no/such-model could not be loaded"),
    ],
)
def test_refusals(files: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    names = {"MODEL": files / "model", "PROBE": files / "probe.txt", "OUT": tmp_path / "out", "THERE": files}
    assert words in prune(*(names.get(option, option) for option in options))
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_pruned_are_refused_before_they_are_read(files: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    T5Config().save_pretrained(models / "t5")  # without weights: the configuration is enough
    quantised = json.loads((files / "model" / "config.json").read_text())
    quantised["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (models / "quantised").mkdir()
    (models / "quantised" / "config.json").write_text(json.dumps(quantised))
    BertModel(BertConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)).save_pretrained(
        models / "bert"
    )
    tiny("llama").model.save_pretrained(models / "headless")
    for name, words in {
        "t5": "is an encoder-decoder",
        "quantised": "is quantised; prune the model it was made from",
        "bert": "lacks weights of a causal language model",
        "headless": "lacks weights of a causal language model (1, such as lm_head.weight)",
    }.items():
        assert words in prune(models / name, "--layers", "1", "--output-dir", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


@pytest.mark.parametrize("wrong", ["", "a", "3-", "5-3", "1,,2"])
def test_lists_of_layers_that_make_no_sense_are_wrong_usage(wrong: str) -> None:
    with pytest.raises(SystemExit) as ended:
        prune("model", "--layers", wrong, "--output-dir", "out")
    assert ended.value.code == 2


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-evaluation-harness is installed")
def test_the_harness_is_asked_for_by_name(files: Path) -> None:
    common = (files / "model", "--prompts", files / "probe.txt", "--text", files / "text.txt")
    assert "run: pip install lm-eval" in prune(*common, "--lm-eval", "hellaswag")
