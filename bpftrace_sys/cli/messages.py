"""What bpfstrace says for itself on stderr, and its own exit codes."""

from __future__ import annotations

import sys

DONE = 0
"""It was done; what was compared is the same, what was judged is within what is allowed."""
DIFFERENT = 1
"""diff found a difference, check something that is not allowed, doctor that nothing can be traced,
disasm bytes that are no instruction."""
TROUBLE = 2
"""Wrong arguments; or a trace or file that cannot be read, in whole or in part."""
OWN_FAILURE = 125
"""bpfstrace itself could not do its work, or what it printed did not arrive; as env(1) has it."""


def complain(text: str) -> None:
    """A message on stderr; names that stand in it cannot steer a terminal."""
    from bpftrace_sys.common.escape import printable

    print(f"bpfstrace: {printable(text)}", file=sys.stderr)


def fault_words(error: BaseException, debug: bool = False) -> str:
    """What an exception means that nobody foresaw: something has run out, or a fault of ours.

    ``debug``: where it happened is shown, and need not be asked for.
    """
    words = None
    try:
        from bpftrace_sys.common.shortage import shortage

        words = shortage(error)
    except (ImportError, OSError, MemoryError):
        # What has run out is not there for this, either.
        if isinstance(error, MemoryError):
            words = "no memory is left"
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    hint = "" if debug else "; --debug shows where"
    return words or f"a fault of bpfstrace's own: {text}{hint}"
