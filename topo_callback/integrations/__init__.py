"""Ways in for training code that is not ours to change: scripts without a hook, argument parsers, other frameworks."""
