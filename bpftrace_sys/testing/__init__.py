"""For tests of other programs: the pytest plugin."""
