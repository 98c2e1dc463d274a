"""The processes of one training run: what they say to each other, and reading a probe in turns."""
