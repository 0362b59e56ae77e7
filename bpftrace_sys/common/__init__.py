"""What every part needs and that knows nothing of BPF."""

from __future__ import annotations


class BpfstraceError(Exception):
    """Trouble that was foreseen: its text is a sentence for people, and says what to do.

    It stands here, as each command imports this package whatever it does.
    """
