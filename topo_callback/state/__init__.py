"""What objects and tensors hold, noted before something of ours runs and put back afterwards."""
