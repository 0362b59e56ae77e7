"""Pure decoders: bytes of a stopped tracee in, named values out.

Nothing here does I/O, knows ptrace or prints.  The package imports only the
standard library and construct.
"""

from __future__ import annotations


class BpfstraceError(Exception):
    """Trouble that was foreseen: its text is a sentence for people, and says what to do.

    The one root of such errors. It stands here, as all may import this package, and each
    command does so whatever it does.
    """
