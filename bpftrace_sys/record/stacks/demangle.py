"""C++ names as people read them, by the demangler of the libstdc++ that this machine has.

The names are the tracee's, and a name of a hundred bytes can be made to unfold into gigabytes, or
to take for ever. So another process asks the library, without privileges, within limits of memory
and time; where it dies of a name, that name stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import sys
import time
from collections import OrderedDict
from typing import Final

from bpftrace_sys.common.nobodys_child import start

MANGLED: Final = re.compile(r"_Z[\w.$]{1,1022}", re.ASCII)
"""What is asked about: of the Itanium C++ ABI, and short."""
RUST: Final = re.compile(r"::h[0-9a-f]{16}$")
RUST_END: Final = re.compile(r"17h[0-9a-f]{16}E$")
LIMIT: Final = 4096
"""Characters of what a name is made."""
MEMORY: Final = 256 << 20
PATIENCE: Final = 1.0
"""Seconds for which an answer is waited for."""
SECONDS: Final = 20
"""Of processor time, for all names."""
DEATHS: Final = 3
"""How often the process may die before nobody is asked any more."""
KNOWN: Final = 4096
"""Names that are remembered."""
NOBODY: Final = 65534
ASKED: Final = f"""
import ctypes, os, sys
try:
    lib = ctypes.CDLL("libstdc++.so.6")
    demangle = lib["__cxa_demangle"]
except (OSError, AttributeError):
    sys.exit(1)
demangle.restype = ctypes.c_void_p
demangle.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
free = ctypes.CDLL(None).free
free.argtypes = [ctypes.c_void_p]
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
for line in sys.stdin.buffer:
    found = demangle(line.rstrip(b"\\n"), None, None, None)
    text = ctypes.string_at(found) if found else b""
    free(found)
    sys.stdout.buffer.write(text[:{LIMIT}].replace(b"\\n", b"?") + b"\\n")
    sys.stdout.buffer.flush()
"""
"""What the other process runs: a name a line, and what it stands for; an empty line for nothing."""


class Demangler:
    """Asks a process, which is started at the first name."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()
        self._pidfd = -1
        self._write = self._read = -1
        self._deaths = 0

    def name(self, symbol: str) -> str:
        """What a symbol stands for; itself where that is not known. Never raises."""
        if not symbol.startswith("_Z") or MANGLED.fullmatch(symbol) is None:
            return symbol
        known = self._known.get(symbol)
        if known is None:
            known = self._known[symbol] = self._ask(symbol) or symbol
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return known

    def _ask(self, symbol: str) -> str:
        if self._deaths >= DEATHS:
            return ""
        try:
            if self._pidfd < 0:
                self._begin()
            os.write(self._write, f"{symbol}\n".encode())
            answer = self._answer()
        except OSError:
            answer = None
        if answer is None:
            self._deaths += 1
            self.close()
            return ""
        text = answer.decode("utf-8", "backslashreplace")
        # Rust names were C++'s, with a hash as their last part.
        return RUST.sub("", text) if RUST_END.search(symbol) else text

    def _begin(self) -> None:
        theirs, self._write = os.pipe()
        self._read, answers = os.pipe()

        def run() -> None:
            os.dup2(theirs, 0)
            os.dup2(answers, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            _confine()
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", ASKED])

        try:
            self._pidfd = start(run)
        finally:
            os.close(theirs)
            os.close(answers)

    def _answer(self) -> bytes | None:
        """A line; None where the process has died, or takes too long."""
        until = time.monotonic() + PATIENCE
        found = b""
        while not found.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or len(found) > LIMIT:
                return None
            if select.select([self._read], [], [], left)[0]:
                piece = os.read(self._read, LIMIT + 1)
                if not piece:
                    return None
                found += piece
        return found[:-1]

    def close(self) -> None:
        """Ends the process."""
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        for fd in (self._pidfd, self._write, self._read):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._write = self._read = -1


def _confine() -> None:
    """Takes from this process what it does not need."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when we do
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
