"""Row 22 of the list of faults: models loaded quantised, with trained adapters on top (QLoRA)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from tiny import tiny_llama, tiny_tokenizer

from topo_callback import Probe, TopologyCallback, TopologyConfig, Trajectory
from topo_callback.records.record import read_record

# the back ends warn when they are imported and when they are used
pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(24)]
STEPS = 3


def nf4() -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


def llm_int8() -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)


def torchao_int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def quanto_int8() -> Any:
    from transformers import QuantoConfig

    return QuantoConfig(weights="int8")


# how a model is quantised -> the package that does it
WAYS: dict[Callable[[], Any], str] = {
    nf4: "bitsandbytes", llm_int8: "bitsandbytes", torchao_int8: "torchao", quanto_int8: "optimum.quanto",
}  # fmt: skip


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    """Loads the same quantised model again and again."""
    pytest.importorskip(WAYS[request.param], reason="quantises a model", exc_type=ImportError)
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "model"
    tiny_llama(tiny_tokenizer(), layers=3, width=64).save_pretrained(folder)
    return functools.partial(AutoModelForCausalLM.from_pretrained, folder, quantization_config=request.param())


def with_adapter(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))


def train(model: Any, folder: Path, callbacks: list[Any]) -> dict[str, bytes]:
    """Train the adapter; every number of the model afterwards, quantised ones included."""
    from transformers import Trainer, TrainingArguments

    encoded = tiny_tokenizer()(TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
    args = TrainingArguments(
        str(folder), max_steps=STEPS, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no", seed=3,
    )  # fmt: skip
    torch.manual_seed(3)
    Trainer(model, args, train_dataset=rows, callbacks=callbacks).train()
    return {name: value.detach().float().numpy().tobytes() for name, value in numbers(model)}


def numbers(model: Any) -> list[tuple[str, torch.Tensor]]:
    """Plain tensors as they are, those of a quantised class as the numbers that they stand for."""
    return [
        (name, value.dequantize() if hasattr(value, "dequantize") and type(value.data) is not torch.Tensor else value)
        for name, value in [*model.named_parameters(), *model.named_buffers()]
    ]


def test_the_models_are_quantised(load: Callable[[], Any]) -> None:
    """At most 256 different numbers stand for the weights of an output, or 16 for a block of them."""
    linear = load().model.layers[0].mlp.up_proj
    assert linear.weight.shape == (128, 64) or linear.weight.numel() == 128 * 64 // 2
    assert type(linear) is not torch.nn.Linear or type(linear.weight.data) is not torch.Tensor


@pytest.mark.slow
def test_fault_22_a_quantised_model_with_an_adapter_is_read_and_not_disturbed(
    load: Callable[[], Any], tmp_path: Path
) -> None:
    tokenizer = tiny_tokenizer()
    # without a beginning that they share, for by hand none is computed once
    probe = Probe.from_rows([f"{place} {text}" for place, text in enumerate(TEXTS)], tokenizer)
    config = TopologyConfig(
        layers="all", neighbours=3, probe_batch=32, max_overhead=None, measures=("scale", "mutual_knn"), pictures=0,
        general_text=4, keep_distances=True, drain_seconds=100.0,
    )  # fmt: skip
    callback = TopologyCallback(probe, config=config, sinks=[])
    before = by_hand(with_adapter(load()), probe)
    plain = train(with_adapter(load()), tmp_path / "plain", [])
    model = with_adapter(load())
    watched = train(model, tmp_path / "watched", [callback])
    assert [name for name, value in plain.items() if watched[name] != value] == []

    trajectory = Trajectory.load(tmp_path / "watched")
    assert trajectory.steps == tuple(range(STEPS + 1))
    assert trajectory.layers == (1, 2, 3)
    for step, expected in ((0, before), (STEPS, by_hand(model, probe))):
        assert set(trajectory.snapshot(step).status.values()) == {"ok"}
        recorded = read_record(trajectory.folder / "distances" / f"step-{step:08d}.npz")[0]["distances"]
        for row, cloud in enumerate(expected):
            np.testing.assert_allclose(recorded[row], pdist(cloud), rtol=1e-5, atol=1e-6)
    assert not np.allclose(before[-1], by_hand(model, probe)[-1], atol=1e-3), "nothing was learned"


def by_hand(model: Any, probe: Probe) -> list[np.ndarray]:
    """The last tokens' hidden states after each block, as the model itself hands them out; the last one by a hook of
    its own, since what the model hands out there has gone through the final norm."""
    lengths = [len(tokens) for tokens in probe.token_ids]
    ids = torch.zeros(len(probe), max(lengths), dtype=torch.long)
    for row, tokens in enumerate(probe.token_ids):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    last = torch.tensor(lengths) - 1
    mask = (torch.arange(max(lengths)) <= last[:, None]).long()
    base = model.get_base_model()
    final: list[torch.Tensor] = []
    handle = base.model.norm.register_forward_pre_hook(lambda module, arguments: final.append(arguments[0]))
    was_training = model.training
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # on some processors bitsandbytes packs 4-bit weights anew in evaluation mode, and then rounds otherwise
            module.support_avx512bf16_for_cpu = False
    with torch.no_grad():
        states = list(base.eval()(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states)
    handle.remove()
    model.train(was_training)
    states[-1] = final[0]
    return [state[torch.arange(len(probe)), last].double().numpy() for state in states[1:]]
