"""From the model at one step to a Sample, and what run.json says of the run: for a training run and for a scan."""
