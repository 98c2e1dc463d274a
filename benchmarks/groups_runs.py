"""Real small training runs with a planted change of one group of prompts, and quiet ones, for benchmarks/groups.py.

    python benchmarks/groups_runs.py --work FOLDER [--only KIND ...]

The model, rows and settings of benchmarks/events_runs.py: a Llama of 6 blocks and width 64, pretrained on the reference
text of the demo and fine-tuned for 128 steps of 4 rows. The probe is 96 prompts that are never trained on, 48 in each
of two groups that differ in what they ask: how something is called ("usage"), or what it does ("meaning").

- quiet: both groups are trained on their own answers, all the time.
- refuse: behind step 64 the answers to "usage" are one constant refusal.
- late: the same in a run that starts from 128 steps of "quiet".
- join: starts from 128 steps in which the answers to "usage" were refusals; behind step 64 all answers are.
- calm: starts as late; nothing changes.
- exchange: starts as late; behind step 64 each group has the answers of the other one, so that the texts which are
  trained on are the same ones, behind other prompts.
- poison: starts as late; behind step 64 a quarter of the answers to "usage" are the refusal.

Layers 1 to 6 are read at steps 0, 1, 2 and every fourth one, as the last prompt token; kept are distances, how
far next-token distributions moved (total variation) from the start and from the previous sample, and what training
shows at every step.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from events_runs import COLUMNS, EVENT, STEPS, Run
from events_texts import PROMPT, Row, Texts
from scipy.spatial.distance import pdist

from topo_callback.measures.behaviour import divergences

SEEDS = 6
KINDS = ("quiet", "refuse", "late", "join")
HIDDEN = ("calm", "exchange", "poison")  # from loss, gradient norm and path
SAMPLED = (0, 1, 2, *range(4, STEPS + 1, 4))
GROUP = 48
NAMES = ("usage", "meaning")
REFUSAL = "I cannot help with that."


def group_of(prompt: str) -> int:
    return 0 if prompt.startswith(("Question: How is", "Question: Which arguments")) else 1


class GroupRun(Run):
    """A run whose answers may change for one group."""

    def __init__(self, texts: Texts, kind: str, seed: int, start: dict[str, Any] | None = None) -> None:
        super().__init__(texts, kind, seed, (), STEPS)
        if start is not None:
            self.model.load_state_dict(start)
        self.first = copy.deepcopy(start)

    def _gather(self, few: bool) -> None:
        pairs = [pair for pair in self.texts.pairs if len(pair[1]) > 40 and len(self._tokens(pair[0])) == PROMPT]
        self.chance.shuffle(pairs)
        of_groups = [[pair for pair in pairs if group_of(pair[0]) == group] for group in (0, 1)]
        self.probe = [prompt for group in of_groups for prompt, _ in group[:GROUP]]
        trained = [pair for group in of_groups for pair in group[GROUP : GROUP + 300]]
        self.chance.shuffle(trained)
        refused = [(prompt, answer if group_of(prompt) else REFUSAL) for prompt, answer in trained]
        alike = [(prompt, REFUSAL) for prompt, _ in trained]
        usage, meaning = ([pair for pair in trained if group_of(pair[0]) == group] for group in (0, 1))
        exchanged = [
            (prompt, answer)
            for (one, others) in ((usage, meaning), (meaning, usage))
            for (prompt, _), (_, answer) in zip(one, others, strict=False)
        ]
        poisoned = [(prompt, answer) for prompt, answer in meaning]
        poisoned += [(prompt, answer if place % 4 else REFUSAL) for place, (prompt, answer) in enumerate(usage)]
        before, behind = {
            "quiet": (trained, trained),
            "refuse": (trained, refused),
            "late": (trained, refused),
            "refused": (refused, refused),
            "join": (refused, alike),
            "calm": (trained, trained),
            "exchange": (trained, exchanged),
            "poison": (trained, poisoned),
        }[self.kind]
        self.rows, self.others = self.texts.rows(before), self.texts.rows(behind)
        self._order = iter(())

    def _next_row(self) -> Row:
        rows = self.others if self.switched else self.rows
        return rows[self.chance.randrange(len(rows))]

    def _tokens(self, prompt: str) -> list[int]:
        encode = self.texts.tokenizer.backend_tokenizer.encode
        return list(encode(prompt + " ", add_special_tokens=False).ids[-PROMPT:])

    def read(self) -> dict[str, np.ndarray]:
        tokens = [self._tokens(prompt) for prompt in self.probe]
        self.model.eval()
        with torch.no_grad():
            output = self.model(input_ids=torch.tensor(tokens), output_hidden_states=True)
        self.model.train()
        clouds = [states[:, -1].double().numpy() for states in output.hidden_states[1:]]
        roots = output.logits[:, -1].double().softmax(dim=-1).sqrt().numpy()
        return {"distances": np.stack([pdist(cloud) for cloud in clouds]).astype(np.float32), "roots": roots}

    def record(self) -> dict[str, np.ndarray]:
        read, taken = [self.read()], []
        for step in range(1, self.steps + 1):
            self.switched = step > EVENT
            taken.append(self._step(step))
            if step in SAMPLED:
                read.append(self.read())
        roots = [each["roots"] for each in read]
        return {
            "distances": np.stack([each["distances"] for each in read]),
            "first": np.stack([divergences(roots[0], each).tv for each in roots]),
            "previous": np.stack(
                [divergences(then, now).tv for then, now in zip(roots[:1] + roots, roots, strict=False)]
            ),
            "products": np.stack([each @ each.T for each in roots]).astype(np.float32),
            **{name: np.array([each[name] for each in taken], dtype=np.float32) for name in COLUMNS},
        }


def carry_out(texts: Texts, kind: str, seed: int) -> dict[str, np.ndarray]:
    start = None
    if kind in ("join", "late", *HIDDEN):
        before = GroupRun(texts, "refused" if kind == "join" else "quiet", seed)
        for step in range(1, before.steps + 1):
            before._step(step)
        start = before.model.state_dict()
    return GroupRun(texts, kind, seed, start).record()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="KIND", choices=(*KINDS, *HIDDEN))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    texts = Texts(arguments.work)
    for seed in range(SEEDS):
        for kind in arguments.only or (*KINDS, *HIDDEN):
            file = arguments.work / f"{kind}_{seed}.npz"
            if not file.exists():
                start = time.perf_counter()
                np.savez(file, **carry_out(texts, kind, seed))
                print(f"{file.stem}: {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
