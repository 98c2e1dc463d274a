"""A real trainer with a probe in groups: training and all other numbers are those without."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainingArguments

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.groups import Groups
from topo_callback.probe.files import read_probe

SUMS = [f"What is {i} plus {i * i % 17}?" for i in range(10)]
NAMES = [f"Who was the friend of number {i * 3}?" for i in range(10)]
QUICK = TopologyConfig(
    max_overhead=None, neighbours=3, pictures=0, sample_on_save=False, drain_seconds=120.0, keep_prompts=True,
    measures=("scale", "mutual_knn"), general_text=0, zigzag_engine="off", errors=False,
)  # fmt: skip


def trained(folder: Path, probe: Any) -> tuple[Trajectory, dict[str, torch.Tensor]]:
    tokenizer = tiny_tokenizer()
    rows = [{"input_ids": ids, "labels": ids} for ids in (tokenizer(text)["input_ids"][:8] for text in SUMS)]
    args = TrainingArguments(
        str(folder), max_steps=2, per_device_train_batch_size=1, learning_rate=1e-2, use_cpu=True, report_to=[],
        save_strategy="no", disable_tqdm=True, logging_steps=1,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as executor:
        callback = TopologyCallback(probe, config=QUICK, processing_class=tokenizer, executor=executor)
        trainer = Trainer(tiny_llama(tokenizer), args, train_dataset=rows, callbacks=[callback])
        trainer.train()
    return Trajectory.load(folder), {name: each.clone() for name, each in trainer.model.state_dict().items()}


def test_groups_reach_the_record_and_leave_training_and_other_numbers_alone(tmp_path: Path) -> None:
    grouped, weights = trained(tmp_path / "grouped", {"sums": SUMS, "names": NAMES})
    plain, same_weights = trained(tmp_path / "plain", [*SUMS, *NAMES])
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    assert grouped.steps == plain.steps == (0, 1, 2)
    assert grouped.run["probe"]["hash"] == plain.run["probe"]["hash"]
    assert grouped.groups == Groups.of_labels(["sums"] * 10 + ["names"] * 10)
    assert "groups" not in plain.run["probe"]
    table, other = (each.frame() for each in (grouped, plain))
    assert list(table.columns) == ["step", "layer", "measure", "value"]
    timed = ("overhead", "previous_sample_seconds")
    without = table[~table.measure.str.contains("[", regex=False) & ~table.measure.isin(timed)]
    assert without.reset_index(drop=True).equals(other[~other.measure.isin(timed)].reset_index(drop=True))
    of_groups = grouped.array("separation[sums|names]")
    assert of_groups.shape == (3, len(grouped.layers))
    assert (grouped.array("separation_p[sums|names]", [None]) <= 1).all()
    assert (grouped.array("drift[names].first")[1:] > 0).all()
    assert (grouped.array("next_token_tv[sums].first", [None])[1:] > 0).all()
    assert set(grouped.snapshot(2).leading) == {
        f"{test}[{pair}]"
        for test, pair in (
            ("separates", "sums|names"), ("merges", "sums|names"), ("answers", "sums|names"), ("answers", "names|sums")
        )
    }  # fmt: skip
    kept = read_probe(tmp_path / "grouped", None, max_tokens=256)
    assert (kept.groups, kept.hash) == (grouped.groups, grouped.run["probe"]["hash"])
