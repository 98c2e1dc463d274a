"""The worker: all homology and all files of a run, outside the training process."""
