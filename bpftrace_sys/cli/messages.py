"""What bpfstrace says for itself on stderr, and its own exit codes."""

from __future__ import annotations

import sys

BAD_USAGE = 2
OWN_FAILURE = 125
"""bpfstrace itself could not do its work, or what it printed did not arrive; as env(1) has it."""


def complain(text: str) -> None:
    """A message on stderr; names that stand in it cannot steer a terminal."""
    from bpftrace_sys.common.escape import printable

    print(f"bpfstrace: {printable(text)}", file=sys.stderr)
