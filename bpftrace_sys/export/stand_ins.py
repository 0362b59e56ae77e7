"""Stand-ins: what stands in the place of what a trace is not to give away.

They are made with a key that is thrown away, are as long as what they stand for, and the same
for the same.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

from bpftrace_sys.export.kept_words import IN_LOG, of_headers, of_logs

KERNEL_WORDS: Final = frozenset(
    b"sys fs bpf kernel debug tracing events proc self bus event_source devices cgroup btf vmlinux "
    b"kallsyms type format kprobe uprobe software tracepoint breakpoint kprobe_events "
    b"uprobe_events enable id trace_pipe available_filter_functions dev etc usr lib bin".split()
)
"""Parts of paths that every machine has."""
KERNEL_TREES: Final = (b"/sys/bus/event_source/", b"/proc/sys/kernel/")
"""Below these only the kernel makes names."""
NO_PATH: Final = re.compile(rb"anon_inode:.*|(?:socket|pipe|net|mnt):\[\d+\]")
"""What the link of an fd says where it has no path; a path begins with /."""
LICENCES: Final = frozenset({
    b"", b"GPL", b"GPL v2", b"GPL and additional rights", b"Dual BSD/GPL", b"Dual MIT/GPL",
    b"Dual MPL/GPL", b"Proprietary",
})  # fmt: skip
"""include/linux/license.h; what a program may do depends on them."""
NAMES: Final = 1 << 16
"""Names that are remembered."""
LONG: Final = 512
"""Characters of a name that its stand-in follows; the kernel's KSYM_NAME_LEN."""
DIGITS: Final = b"0123456789"
FIRST: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
"""What a name of C begins with; INSIDE, what it goes on with."""
INSIDE: Final = FIRST + DIGITS
_TOKEN: Final = re.compile(rb"[0-9A-Za-z_\x80-\xff]{2,}")
"""What may be a name; one of a single letter is none."""
_LEFT: Final = re.compile(rb"[0-9A-Za-z_]{4,}")
SURELY: Final = 8
"""Letters beside each other in a struct's numbers that are a name, or part of one."""
_NUMBER: Final = re.compile(rb"(?:0[xX][0-9a-fA-F]+|\d+)[uUlL]*")
_ENDS: Final = re.compile(rb"([\n\0]+)")
_LETTERS: Final = bytes(97 + octet % 26 for octet in range(256))


class StandIns:
    """Makes stand-ins; the key is known to this object only."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._names: dict[bytes, bytes] = {}

    def octets(self, data: bytes) -> bytes:
        """As many others."""
        return hashlib.shake_256(self._key + data).digest(len(data))

    def word(self, data: bytes) -> bytes:
        """As many letters."""
        return self.octets(data).translate(_LETTERS)

    def text(self, data: bytes) -> bytes:
        """Line by line, up to the end of a string; licences stay."""
        if data.rstrip(b"\0") in LICENCES:
            return data
        parts = _ENDS.split(data)
        return b"".join(part if at % 2 else self.word(part) for at, part in enumerate(parts))

    def path(self, data: bytes) -> bytes:
        """Part by part."""
        whole = data.rstrip(b"\0")
        if whole.startswith(KERNEL_TREES) and b".." not in whole:
            return data
        if NO_PATH.fullmatch(whole):
            return data
        return b"/".join(
            part if part.rstrip(b"\0") in KERNEL_WORDS else self.text(part)
            for part in data.split(b"/")
        )

    def of_str(self, text: str, path: bool = False) -> str:
        """Of a text that is not the program's bytes."""
        data = text.encode("utf-8", "surrogatepass")
        return (self.path(data) if path else self.word(data)).decode("ascii", "replace")

    # ------------------------------------------------------------ names

    def renamed(self, data: bytes) -> bytes:
        """Text of the program's with other names in it: names, a line of source, BTF's strings."""
        return _TOKEN.sub(self._token, data)

    def left_renamed(self, data: bytes) -> bytes:
        """What is left of other things in memory: what is as long as names are, or was one."""
        return _LEFT.sub(self._left_token, data)

    def log_renamed(self, data: bytes) -> bytes:
        """The verifier's log, and that of BTF, with other names in it."""
        return b"\n".join(
            # A line of source is held to the same words as in BTF.
            self.renamed(line) if line.startswith(b"; ") else _TOKEN.sub(self._log_token, line)
            for line in data.split(b"\n")
        )

    def renamed_str(self, text: str) -> str:
        """Of a text that is not the program's bytes."""
        return self.renamed(text.encode("utf-8", "surrogatepass")).decode("ascii", "replace")

    def _token(self, found: re.Match[bytes]) -> bytes:
        token = found[0]
        if token in of_headers() or _NUMBER.fullmatch(token):
            return token
        return self.name(token)

    def _left_token(self, found: re.Match[bytes]) -> bytes:
        token = found[0]
        if len(token) < SURELY and token not in self._names:
            return token
        return token if token in of_headers() else self.name(token)

    def _log_token(self, found: re.Match[bytes]) -> bytes:
        token = found[0]
        if token in of_logs() or _NUMBER.fullmatch(token) or IN_LOG.fullmatch(token):
            return token
        return self.name(token)

    def name(self, token: bytes) -> bytes:
        """Another name: of one name another one than of any other, and of names that begin alike
        such that begin alike, as the kernel cuts names short."""
        known = self._names.get(token)
        if known is None:
            known = self._shifted(token)
            if len(self._names) < NAMES:
                self._names[token] = known
        return known

    def _shifted(self, token: bytes) -> bytes:
        """Each character goes on in its alphabet as far as the key and those before it say."""
        made = bytearray()
        state = hashlib.blake2b(key=self._key, digest_size=8)
        for octet in token[:LONG]:
            number = int.from_bytes(state.copy().digest(), "little")
            alphabet = INSIDE if made else DIGITS if octet in DIGITS else FIRST
            at = alphabet.find(octet)
            if at < 0:  # no name in C
                made.append(97 + number % 26)
            else:
                made.append(alphabet[(at + 1 + number % (len(alphabet) - 1)) % len(alphabet)])
            state.update(bytes([octet]))
        return bytes(made) + (self.word(token)[LONG:] if len(token) > LONG else b"")
