"""What every part needs and that knows nothing of BPF."""
