"""The trace: its types, and the file that holds it."""
