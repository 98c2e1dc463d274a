"""Small fine-tuning runs in a process of their own; prints hashes of everything that training leaves behind.

    python undisturbed_run.py OUTPUT_DIR KIND,WATCH [KIND,WATCH ...]

KIND: full | lora | neftune | checkpointing | eight_bits (of the optimizer's state), or one of STATEFUL. WATCH: none |
callback | dataloader | train_mode; the last two watch in ways that are known to disturb, so that the comparison is seen
to notice.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from typing import Any

import numpy as np
import torch
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainerCallback, TrainingArguments

TEXTS = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(48)]


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def tensors(tree: Any) -> list[bytes]:
    """Every tensor and number of a nested structure, in a fixed order."""
    if isinstance(tree, torch.Tensor):
        return [
            tree.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tree.ndim else str(tree).encode()
        ]
    if isinstance(tree, dict):
        return [part for key in sorted(tree, key=str) for part in (str(key).encode(), *tensors(tree[key]))]
    if isinstance(tree, (list, tuple)):
        return [part for item in tree for part in tensors(item)]
    return [repr(tree).encode()]


class Stateful(torch.nn.Module):
    """A layer whose forward pass writes, in evaluation mode too, what later passes compute with."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.noise = torch.Generator().manual_seed(0)
        self.passes = 0
        self.register_buffer("largest", torch.ones(()))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        self.largest.mul_(0.9).add_(0.1 * hidden.detach().abs().max())
        noise = torch.rand(hidden.shape[-1], generator=self.noise)
        return self.inner(hidden / self.largest + 1e-2 * noise / self.passes)


class Hook:
    """A user's own forward hook: it adds a running mean of what came before."""

    def __init__(self) -> None:
        self.mean: Any = 0.0

    def __call__(self, module: Any, args: Any, output: Any) -> Any:
        self.mean = 0.9 * self.mean + 0.1 * output.detach().mean()
        return output + self.mean


class Turning(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Turns each row by a number drawn from a generator of its own."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows, self.draws = rows, np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        turn = int(self.draws.integers(8))
        return {name: value.roll(turn) for name, value in self.rows[index].items()}


def rwkv(tokenizer: Any) -> Any:
    """In evaluation mode RWKV divides its weights in place, and keeps them so until it trains again."""
    from transformers import RwkvConfig, RwkvForCausalLM

    sizes = {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 4, "context_length": 64}
    return RwkvForCausalLM(RwkvConfig(vocab_size=len(tokenizer), rescale_every=2, use_cache=False, **sizes))


def of_kind(kind: str, tokenizer: Any) -> Any:
    """The model of a run."""
    if kind == "rwkv":
        return rwkv(tokenizer)
    model = tiny_llama(tokenizer, layers=3)
    if kind == "dynamic_rope":
        model.config.max_position_embeddings = 16
        model.config.rope_parameters = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
        return type(model)(model.config)
    layer = model.model.layers[1]
    if kind == "layer":
        layer.mlp.down_proj = Stateful(layer.mlp.down_proj)
    elif kind == "observer":
        from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

        observed = {"quant_min": 0, "quant_max": 255, "dtype": torch.quint8}
        fake = FakeQuantize(observer=MovingAverageMinMaxObserver, averaging_constant=0.1, **observed)
        layer.mlp.down_proj = torch.nn.Sequential(fake, layer.mlp.down_proj)
    elif kind == "hook":
        layer.mlp.register_forward_hook(Hook())
    return model


STATEFUL = ("rwkv", "dynamic_rope", "layer", "observer", "hook", "data_set")


class Witness(TrainerCallback):
    """Notes the random states after every step."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        self.states.append(digest(repr(python).encode(), repr(numpy).encode(), torch_state.numpy().tobytes()))


class Disturber(TrainerCallback):
    """Reads the model as a careless monitor would."""

    def __init__(self, rows: list[Any], way: str) -> None:
        self.rows, self.way = rows, way

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **context: Any) -> None:
        batch = torch.stack([row["input_ids"] for row in self.rows[:8]])
        with torch.no_grad():
            if self.way == "train_mode":
                model(input_ids=batch)
            else:
                for _ in torch.utils.data.DataLoader(batch, shuffle=True):
                    pass


def train(output_dir: str, kind: str, watch: str) -> dict[str, str]:
    torch.manual_seed(3)
    tokenizer = tiny_tokenizer()
    model = of_kind(kind, tokenizer)
    model.config.attention_dropout = 0.1
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.1
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=4, lora_dropout=0.2, target_modules="all-linear"))
    encoded = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    rows = [
        {"input_ids": ids, "labels": ids, "attention_mask": mask}
        for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
    ]
    data: Any = Turning(rows) if kind == "data_set" else rows
    order: list[str] = []

    class Watched(Trainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
            order.append(digest(inputs["input_ids"].numpy().tobytes()))
            return super().training_step(model, inputs, *rest, **options)

    args = TrainingArguments(
        output_dir=output_dir,
        max_steps=9,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        # an evaluation at the end would divide the weights of RWKV in both runs
        eval_strategy="no" if kind == "rwkv" else "steps",
        eval_steps=4,
        logging_steps=1,
        save_strategy="steps",
        save_steps=5,
        learning_rate=1e-2,
        lr_scheduler_type="cosine",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        seed=3,
        neftune_noise_alpha=5.0 if kind == "neftune" else None,
        gradient_checkpointing=kind == "checkpointing",
        **({"optim": "adamw_bnb_8bit"} if kind == "eight_bits" else {}),
    )
    witness = Witness()
    callbacks: list[Any] = [witness]
    if watch == "callback":
        from topo_callback import TopologyCallback, TopologyConfig

        # longer than the rows of training, by which caches of positions grow
        probe = [" ".join(TEXTS[i : i + 4]) for i in range(24)] if kind == "dynamic_rope" else None
        config = TopologyConfig(
            prompts=24, max_overhead=None, neighbours=3, measures=("scale", "mutual_knn"), token_measures="all",
            general_text=8, drain_seconds=200.0, pictures=0,
            rules=("loss above 0 for 2", "mutual_knn.first below 2", "grad_norm z above 3"),
        )  # fmt: skip
        callbacks.insert(0, TopologyCallback(probe, config=config, processing_class=tokenizer))
    elif watch != "none":
        callbacks.insert(0, Disturber(rows, watch))
    trainer = Watched(model, args, train_dataset=data, eval_dataset=rows[:8], callbacks=callbacks)
    trainer.train()
    logged = [
        {name: value for name, value in entry.items() if "runtime" not in name and "per_second" not in name}
        for entry in trainer.state.log_history
    ]
    return {
        "weights": digest(*tensors(dict(model.state_dict()))),
        "optimizer": digest(*tensors(trainer.optimizer.state_dict())),
        "losses": digest(json.dumps(logged, sort_keys=True).encode()),
        "random_states": digest(*(state.encode() for state in witness.states)),
        "batch_order": digest(*(batch.encode() for batch in order)),
        "flags": digest(repr([module.training for module in model.modules()]).encode()),
        "gradients_wanted": digest(repr([parameter.requires_grad for parameter in model.parameters()]).encode()),
        "hooks": digest(repr([len(module._forward_hooks) for module in model.modules()]).encode()),
    }


def main(output_dir: str, *runs: str) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(json.dumps({run: train(f"{output_dir}/{run}", *run.split(",")) for run in runs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
