"""The models of the fuzz of training configurations: families, PEFT methods, and modules with state of their own."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from families import LORA_TARGETS, tiny
from fuzzed_axes import MASKED, SEQ2SEQ
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from topo_callback.capture import find_blocks

_OTHER_TARGETS = {
    "rwkv": ("key", "value"),
    "deberta-v2": ("query_proj", "value_proj"),
    "electra": ("query", "value"),
    "xlnet": ("layer_1",),
    "switch_transformers": ("q", "v"),
    "llama_dynamic": ("q_proj", "v_proj"),
    "phi3_longrope": ("qkv_proj",),
}
_LONG_ROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 10000.0}


def build(family: str, *, vocabulary: int = 101, attention: str = "eager") -> Any:
    """A random model of three or four blocks, in training mode."""
    import transformers

    chosen = {"vocab_size": vocabulary}
    if family == "llama_dynamic":
        rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
        model = tiny("llama", rope_parameters=rope, **(chosen | {"max_position_embeddings": 8}))
    elif family == "phi3_longrope":
        sizes = {"max_position_embeddings": 64, "original_max_position_embeddings": 8}
        model = tiny("phi3", rope_parameters=_LONG_ROPE | {"original_max_position_embeddings": 8}, **(chosen | sizes))
    elif family in ("bert", "roberta", "modernbert"):
        config = tiny(family, **chosen).config
        torch.manual_seed(0)
        model = transformers.AutoModelForMaskedLM.from_config(config)
    elif family in _OTHER_TARGETS:
        from architectures import build as build_architecture

        kind = "masked" if family in MASKED else "seq2seq" if family in SEQ2SEQ else "causal"
        more = {"decoder_start_token_id": 0} if family in SEQ2SEQ else {}
        model = build_architecture(kind, family, **chosen, **more)
    else:
        model = tiny(family, **chosen)
    if attention == "eager" and hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    return model.train()


def adapted(model: Any, family: str, method: str) -> Any:
    """The model with the adapters of a PEFT method."""
    if method == "none":
        return model
    import peft

    targets = list({**LORA_TARGETS, **_OTHER_TARGETS}[family])
    task = {"task_type": "SEQ_2_SEQ_LM" if family in SEQ2SEQ else "CAUSAL_LM"} if family not in MASKED else {}
    fan = {"fan_in_fan_out": True} if family == "gpt2" else {}
    on = {**task, "target_modules": targets}
    virtual = {**task, "num_virtual_tokens": 3}
    embedding = next(name for name, module in model.named_modules() if isinstance(module, nn.Embedding))
    made: dict[str, Callable[[], Any]] = {
        "lora": lambda: peft.LoraConfig(r=2, lora_dropout=0.3, **on, **fan),
        "dora": lambda: peft.LoraConfig(r=2, use_dora=True, **on, **fan),
        "rslora": lambda: peft.LoraConfig(r=2, use_rslora=True, lora_dropout=0.1, bias="lora_only", **on, **fan),
        "adalora": lambda: peft.AdaLoraConfig(
            init_r=4, target_r=2, tinit=1, tfinal=1, deltaT=1, total_step=4, **on, **fan
        ),
        "loha": lambda: peft.LoHaConfig(r=2, rank_dropout=0.2, **on),
        "lokr": lambda: peft.LoKrConfig(r=2, rank_dropout=0.2, module_dropout=0.2, **on),
        "ia3": lambda: peft.IA3Config(feedforward_modules=[], **on, **fan),
        "oft": lambda: peft.OFTConfig(oft_block_size=8, module_dropout=0.1, **on),
        "boft": lambda: peft.BOFTConfig(boft_block_size=4, boft_n_butterfly_factor=1, boft_dropout=0.1, **on),
        "vera": lambda: peft.VeraConfig(r=4, vera_dropout=0.2, **on),
        "fourierft": lambda: peft.FourierFTConfig(n_frequency=10, **on),
        "ln_tuning": lambda: peft.LNTuningConfig(target_modules=_norms(model), **task),
        "prompt": lambda: peft.PromptTuningConfig(**virtual),
        "prefix": lambda: peft.PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=16, **virtual),
        "p_tuning": lambda: peft.PromptEncoderConfig(encoder_hidden_size=16, encoder_dropout=0.1, **virtual),
        "cpt": lambda: peft.CPTConfig(
            cpt_token_ids=[3, 4, 5], cpt_mask=[1, 1, 1], cpt_tokens_type_mask=[1, 2, 4], task_type="CAUSAL_LM"
        ),
        "vblora": lambda: peft.VBLoRAConfig(r=2, num_vectors=8, vector_length=8, topk=2, **on),
        "hra": lambda: peft.HRAConfig(r=2, **on),
        "trainable_tokens": lambda: peft.TrainableTokensConfig(
            token_indices=[3, 5, 8], target_modules=[embedding.rpartition(".")[2]], **task
        ),
        "randlora": lambda: peft.RandLoraConfig(r=2, randlora_dropout=0.1, **on),
        "c3a": lambda: peft.C3AConfig(block_size=8, **on),
        "shira": lambda: peft.ShiraConfig(r=2, **on),
        "road": lambda: peft.RoadConfig(group_size=8, **on),
        "miss": lambda: peft.MissConfig(r=2, **on),
        "waveft": lambda: peft.WaveFTConfig(n_frequency=10, **on),
        "osf": lambda: peft.OSFConfig(effective_rank=4, **on),
        "lora_embedding": lambda: peft.LoraConfig(
            r=2, **{**on, "target_modules": [*targets, embedding.rpartition(".")[2]]}
        ),
        "lora_saved_head": lambda: peft.LoraConfig(r=2, modules_to_save=[_head(model)], **on, **fan),
        "two_adapters": lambda: peft.LoraConfig(r=2, lora_dropout=0.2, **on, **fan),
    }
    with_adapters = peft.get_peft_model(model, made[method]())
    if method == "two_adapters":
        with_adapters.add_adapter("second", peft.LoraConfig(r=3, **on, **fan))
        with_adapters.base_model.set_adapter(["default", "second"])
    return with_adapters


def _norms(model: Any) -> list[str]:
    return sorted({name.rpartition(".")[2] for name, each in model.named_modules() if "Norm" in type(each).__name__})


def _head(model: Any) -> str:
    head = model.get_output_embeddings()
    return next(name for name, module in model.named_modules() if module is head).rpartition(".")[2]


# modules with state


class Wrapped(nn.Module):
    """A block's own linear layer, whose input or output goes through something with state.

    Attributes:
        act: takes this module, the input and the output; returns the output.
    """

    def __init__(self, inner: nn.Module, act: Callable[[Wrapped, Tensor, Tensor], Tensor], **state: Any) -> None:
        super().__init__()
        self.inner, self.act = inner, act
        for name, value in state.items():
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    @property
    def weight(self) -> Tensor:
        return self.inner.weight  # type: ignore[return-value]

    def forward(self, hidden: Tensor) -> Tensor:
        return self.act(self, hidden, self.inner(hidden))


def _moving_average(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    self.mean.mul_(0.9).add_(0.1 * out.detach().float().mean())
    return out + 0.1 * self.mean.to(out.dtype)


def _counter(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    self.passes += 1
    return out * (1 + 1 / self.passes)


def _own_generator(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    return out + 0.01 * torch.rand(out.shape[-1], generator=self.noise).to(out.dtype)


def _numpy_dropout(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    keep = self.draws.random(out.shape[-1]) > 0.2
    return out * torch.from_numpy(keep).to(out.dtype)


def _cache(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    """The first input's mean is kept, and the largest length so far."""
    if self.first is None:
        self.first = hidden.detach().mean()
    self.longest = max(self.longest, hidden.shape[-2] if hidden.ndim > 2 else 1)
    return out * (1 + 0.01 * self.longest) + 0.1 * self.first


def _batch_norm(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    """Running statistics that go on in evaluation mode."""
    rows = out.reshape(-1, out.shape[-1]).float()
    normed = nn.functional.batch_norm(rows, self.mean, self.spread, training=True, momentum=0.3)
    return out + 0.1 * (normed + self.mean.clone()).reshape(out.shape).to(out.dtype)


def _lazy_buffer(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    if not hasattr(self, "made"):
        self.register_buffer("made", out.detach().float().mean(dim=tuple(range(out.ndim - 1))))
    return out + 0.1 * self.made.to(out.dtype)


def _in_numpy(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    self.table[0] += 1
    self.seen.detach().numpy()[1] += 1
    return out * (1 + 0.1 / self.table[0] + 0.1 / float(self.seen[1]))


def _swaps_parameter(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    """A parameter whose data are exchanged in every pass."""
    self.scale.data = self.scale.data * 0.9
    return out * self.scale.to(out.dtype)


_PASSES = 0


def _global_state(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    global _PASSES
    _PASSES += 1
    return out * (1 + 1 / _PASSES)


class Counted(Wrapped):
    """Counts in its class."""

    total = 0
    log: list[int] = []  # noqa: RUF012 - state of the class is the subject

    def forward(self, hidden: Tensor) -> Tensor:
        type(self).total += 1
        self.log.append(len(hidden))
        return self.act(self, hidden, self.inner(hidden)) * (1 + 1 / (Counted.total + len(self.log)))


def _deque(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    self.last.append(out.detach().mean())
    self.by_shape[tuple(hidden.shape)] += 1
    self.kept["newest"] = out.detach().std()
    return out + 0.1 * sum(self.last) + 0.1 * self.kept["newest"] / len(self.by_shape)


def _python_random(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    return out * (1 + 0.1 * self.draws.random() + 0.1 * random.random())


def _iterator(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    return out * (1 + 0.01 * next(self.numbers))


def _numbers() -> Any:
    yield from range(10**6)


def _config_field(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    self.config.passes = getattr(self.config, "passes", 0) + 1
    return out * (1 + 1 / self.config.passes)


def _submodule_swap(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    self.more = nn.Dropout(min(0.5, self.more.p + 0.05))
    return out * (1 - self.more.p)


def _keyed_by_length(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    kept = self.tables.setdefault(hidden.shape[-2], out.detach().mean())
    return out + 0.1 * kept * len(self.tables)


def _buffer_by_data(self: Any, hidden: Tensor, out: Tensor) -> Tensor:
    self.mean.data = self.mean.data * 0.5 + out.detach().float().mean()
    self.large.view(-1)[::1000].add_(1)
    return out + 0.1 * self.mean.to(out.dtype) + 0.001 * self.large[0, 0].to(out.dtype)


class StateHook:
    """A user's forward hook with a running mean and its own count."""

    def __init__(self) -> None:
        self.mean: Any = 0.0
        self.calls = 0

    def __call__(self, module: Any, args: Any, output: Any) -> Any:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * output.detach().mean() / self.calls
        return output + self.mean

    def before(self, module: Any, args: Any) -> Any:
        self.calls += 1
        return (args[0] * (1 + 0.1 / self.calls), *args[1:])


class Halved(nn.Module):
    """A parametrization that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return weight * (1 - 0.1 / self.calls.clone())


def _closure_hook() -> Any:
    calls, seen = 0, []

    def hook(module: Any, args: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        seen.append(float(output.detach().mean()))
        return output * (1 + 0.1 / calls) + 0.01 * sum(seen)

    return hook


def _backward_hook() -> Any:
    scale = torch.ones(())

    def hook(module: Any, into: Any, out: Any) -> Any:
        scale.mul_(0.9)
        return tuple(None if each is None else each * scale for each in into)

    return hook


def _fake_quant(inner: nn.Module) -> nn.Module:
    from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

    observed = {"quant_min": 0, "quant_max": 255, "dtype": torch.quint8}
    fake = FakeQuantize(observer=MovingAverageMinMaxObserver, averaging_constant=0.1, **observed)
    return Wrapped(inner, lambda self, hidden, out: self.fake(out.float()).to(out.dtype), fake=fake)


_ACTS: dict[str, tuple[Any, Callable[[int, Any], dict[str, Any]]]] = {
    "moving_average": (_moving_average, lambda width, config: {"mean": torch.zeros(())}),
    "counter": (_counter, lambda width, config: {"passes": 0}),
    "own_generator": (_own_generator, lambda width, config: {"noise": torch.Generator().manual_seed(0)}),
    "numpy_dropout": (_numpy_dropout, lambda width, config: {"draws": np.random.default_rng(0)}),
    "cache": (_cache, lambda width, config: {"first": None, "longest": 0}),
    "batch_norm": (_batch_norm, lambda width, config: {"mean": torch.zeros(width), "spread": torch.ones(width)}),
    "lazy_buffer": (_lazy_buffer, lambda width, config: {}),
    "in_numpy": (_in_numpy, lambda width, config: {"table": np.zeros(3), "seen": torch.zeros(3)}),
    "swaps_parameter": (_swaps_parameter, lambda width, config: {"scale": nn.Parameter(torch.ones(()))}),
    "global_state": (_global_state, lambda width, config: {}),
    "deque": (
        _deque,
        lambda width, config: {
            "last": collections.deque(maxlen=3),
            "by_shape": collections.Counter(),
            "kept": collections.OrderedDict(),
        },
    ),
    "python_random": (_python_random, lambda width, config: {"draws": random.Random(0)}),
    "iterator": (_iterator, lambda width, config: {"numbers": itertools.count()}),
    "generator_function": (_iterator, lambda width, config: {"numbers": _numbers()}),
    "config_field": (_config_field, lambda width, config: {"config": config}),
    "submodule_swap": (_submodule_swap, lambda width, config: {"more": nn.Dropout(0.0)}),
    "keyed_by_length": (_keyed_by_length, lambda width, config: {"tables": {}}),
    "buffer_by_data": (
        _buffer_by_data,
        lambda width, config: {"mean": torch.zeros(()), "large": torch.zeros(200, 200)},
    ),
}


def _place(model: Any, family: str) -> tuple[nn.Module, str, nn.Module]:
    """The last linear layer of the second block that no adapter is put on: where it is, its name, itself."""
    taken = {**LORA_TARGETS, **_OTHER_TARGETS}[family]
    block = find_blocks(model).blocks[1]
    found = [
        name
        for name, module in block.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D", "NonDynamicallyQuantizableLinear")
        and name.rpartition(".")[2] not in taken
    ]
    path, _, name = found[-1].rpartition(".")
    parent = block.get_submodule(path)
    return parent, name, getattr(parent, name)


def plant(model: Any, family: str, kind: str) -> None:
    """Put state of a kind into the model's second block."""
    if kind == "none":
        return
    parent, name, inner = _place(model, family)
    weight: Any = inner.weight
    width = weight.shape[1] if type(inner).__name__ == "Conv1D" else weight.shape[0]
    if kind == "state_hook":
        inner.register_forward_hook(StateHook())
    elif kind == "pre_hook":
        inner.register_forward_pre_hook(StateHook().before)
    elif kind == "closure_hook":
        inner.register_forward_hook(_closure_hook())
    elif kind == "backward_hook":
        inner.register_full_backward_hook(_backward_hook())
    elif kind == "parametrized":
        parametrize.register_parametrization(inner, "weight", Halved())
    elif kind == "spectral_norm":
        parametrizations.spectral_norm(inner)
    elif kind == "old_spectral_norm":
        nn.utils.spectral_norm(inner)
    elif kind == "weight_norm":
        parametrizations.weight_norm(inner)
    elif kind == "fake_quant":
        setattr(parent, name, _fake_quant(inner))
    elif kind == "class_state":
        setattr(parent, name, Counted(inner, lambda self, hidden, out: out))
    else:
        act, state = _ACTS[kind]
        setattr(parent, name, Wrapped(inner, act, **state(width, model.config)))
