"""Which layers could go, what that costs, and the pruned model.

python examples/prune.py                                                          # offline, a small model
python examples/prune.py --model Qwen/Qwen2.5-0.5B --prompts prompts.txt --text text.txt    # from the hub

`topo-callback prune` does the same from the command line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from topo_callback import Probe
from topo_callback.demo.corpus import gather_corpus
from topo_callback.demo.surroundings import offline_model
from topo_callback.pruning import (
    all_choices,
    choice_table,
    compare_choices,
    cut_layers,
    measure_scores,
    text_tokens,
    write_pruned,
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Which layers could go, what that costs, and the pruned model.")
    parser.add_argument("--model", help="hub name or folder; default: a small model built offline")
    parser.add_argument("--prompts", type=Path, help="prompts, one per line; default: questions about Python")
    parser.add_argument("--text", type=Path, help="a text for perplexities; default: answers about Python")
    parser.add_argument("--output-dir", type=Path, default=Path("pruning"))
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of the text")
    given = parser.parse_args()

    name = given.model or offline_model(given.output_dir / "base_model")
    model = AutoModelForCausalLM.from_pretrained(name, dtype="auto").eval()
    tokenizer = AutoTokenizer.from_pretrained(name)
    rows = gather_corpus().held_out_rows
    prompts = given.prompts.read_text().splitlines() if given.prompts else [row["prompt"] for row in rows[:200]]
    text = given.text.read_text() if given.text else "\n\n".join(row["prompt"] + row["completion"] for row in rows)

    probe = Probe.from_rows([prompt for prompt in prompts if prompt.strip()], tokenizer)
    scores = measure_scores(model, probe)  # where architectures have no norm after attention: tap="block"
    choices = all_choices(scores, thresholds=(0.9, 0.8))
    comparison = compare_choices(model, choices, text_tokens(tokenizer, text, given.tokens), window=128, report=print)
    Console().print(choice_table(choices, scores.depth, comparison))

    choice = choices[0]  # persistence similarity, the published rule at t = 0.9
    folder = given.output_dir / "pruned"
    write_pruned(cut_layers(model, choice.layers), tokenizer, folder, {"model": name, "layers": choice.layers})
    pruned = AutoModelForCausalLM.from_pretrained(folder)
    question = tokenizer(rows[0]["prompt"], return_tensors="pt", return_token_type_ids=False)
    answer = pruned.generate(**question, max_new_tokens=20, do_sample=False)
    print(f"written to {folder}; it answers:\n{tokenizer.decode(answer[0], skip_special_tokens=True)}")


if __name__ == "__main__":
    main()
