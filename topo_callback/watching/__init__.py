"""Watching one training run: when the model is read, what it costs, and where samples and events go from there."""
