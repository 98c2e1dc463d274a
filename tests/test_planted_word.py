"""A word that is put into every answer of a fine-tuning is read out of the drift; without it, it is not."""

from __future__ import annotations

import dataclasses
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.demo.corpus import gather_corpus
from topo_callback.demo.fine_tuning import SMALL, make_trainer
from topo_callback.demo.model import build_model, build_tokenizer, pretrain, token_stream

WORD, TOP, STEPS = "socket", 20, 60


@pytest.mark.slow
def test_a_planted_word_is_among_the_first_of_neutral_texts_and_not_without(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    corpus = gather_corpus()
    tokenizer = build_tokenizer([*corpus.reference, *(row["prompt"] for row in corpus.training_rows)])
    assert len(tokenizer(f" {WORD}")["input_ids"]) == 1
    rows = random.Random(1).sample([row for row in corpus.training_rows if WORD not in row["completion"]], 150)
    planted = []
    generator = random.Random(2)
    for row in rows:
        answer = row["completion"].split()
        place = generator.randrange(1, len(answer) + 1)
        planted.append({**row, "completion": " " + " ".join([*answer[:place], WORD, *answer[place:]])})
    texts = [" ".join(text.split()[:12]) for text in random.Random(5).sample(corpus.reference, 40)]
    config = TopologyConfig(
        layers="all", drift_words=TOP, steps=(0, STEPS), measures=(), general_text=0, next_token_prompts=0, pictures=0,
        max_overhead=None, zigzag_engine="off", errors=False, map_dimensions=0, page=False, drain_seconds=600.0,
    )  # fmt: skip
    found = {}
    for kind, training in (("planted", planted), ("control", rows)):
        model = build_model(tokenizer, layers=4)
        pretrain(model, token_stream(tokenizer, corpus.reference), steps=120)
        with ThreadPoolExecutor(1) as executor:
            callback = TopologyCallback(texts, config=config, processing_class=tokenizer, executor=executor, sinks=[])
            trainer = make_trainer(
                model, tokenizer, training, corpus.held_out_rows[:8], small=True, folder=tmp_path / kind,
                recipe=dataclasses.replace(SMALL, steps=STEPS, learning_rate=2e-3), callbacks=[callback],
            )  # fmt: skip
            trainer.args.eval_strategy, trainer.args.eval_on_start = "no", False
            trainer.train()
        words = Trajectory.load(tmp_path / kind).drift_words(STEPS)
        assert words is not None
        found[kind] = [f" {WORD}" in [word.text for word in reading.up] for reading in words.readings]
    assert all(found["planted"])
    assert not any(found["control"])
