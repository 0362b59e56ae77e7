"""What programs may do: a trace's deeds against a reviewed lock file."""
