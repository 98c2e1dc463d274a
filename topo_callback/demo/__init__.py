"""A real fine-tuning run that needs nothing but a Python: text, tokenizer, model, pretraining, LoRA, trajectory.

`corpus` gathers the English text that every Python carries, `model` builds and pretrains a small Llama-style model on
it, `rows` brings data sets into a form that TRL's SFTTrainer takes, and `run` puts them together.
"""
