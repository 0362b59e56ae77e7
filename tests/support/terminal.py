"""Running a program on a terminal of our own, and what may reach a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import unicodedata
from collections.abc import Mapping, Sequence

OWN_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(
    words: Sequence[str],
    *,
    columns: int = 100,
    env: Mapping[str, str],
    stdin: bytes = b"",
    timeout: float = 60,
) -> tuple[int, str]:
    """Exit code (negative: signal) and all that came out, stdout and stderr being the terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, env=env, start_new_session=True
    ) as child:
        os.close(theirs)
        assert child.stdin is not None
        child.stdin.write(stdin)
        child.stdin.close()
        data = b""
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # EIO: nobody has the terminal open any more
                break
            data += piece
        os.close(ours)
        code = child.wait(timeout)
    return code, data.decode("utf-8").replace("\r\n", "\n")


def commands(text: str) -> set[str]:
    """The characters in a text that a terminal would obey rather than show.

    Newlines are no harm; neither are colours, which only we make.
    """
    return {
        char
        for char in OWN_COLOURS.sub("", text)
        if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    }
