"""Looking for secrets in what was written, in all encodings that it uses."""

from __future__ import annotations

import base64
import contextlib
import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

ROUNDS = re.compile(rb"[A-Za-z0-9+/]{16,}={0,2}")


def unpacked(data: bytes) -> Iterator[bytes]:
    """What a file holds: as it stands, and whatever in it is packed, at any depth."""
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    yield data
    for match in ROUNDS.finditer(data):
        whole = match[0][: len(match[0]) // 4 * 4]
        try:
            inner = base64.b64decode(whole)
        except ValueError:
            continue
        yield inner
        with contextlib.suppress(zlib.error):
            yield from unpacked(zlib.decompressobj().decompress(inner))


def in_base64(secret: bytes) -> Iterator[bytes]:
    """What stands for a secret in base64, wherever it begins."""
    for before in range(3):
        after = -(before + len(secret)) % 3
        text = base64.b64encode(bytes(before) + secret + bytes(after))
        yield text[4 if before else 0 : len(text) - (4 if after else 0)]


def found(paths: list[Path], secrets: dict[str, bytes]) -> set[str]:
    """Which of the secrets stand in files: as they are, in hex, in base64, backwards, as
    numbers, each octet in JSON's or C's ways."""
    whole = b"\0\0".join(piece for path in paths for piece in unpacked(path.read_bytes()))
    low = whole.lower()
    return {
        name
        for name, secret in secrets.items()
        if secret.lower() in low
        or secret[::-1].lower() in low
        or secret.hex().encode() in low
        or secret.hex(" ").encode() in low
        or secret[:8][::-1].hex().encode() in low
        or str(int.from_bytes(secret[:8], "little")).encode() in whole
        or ", ".join(map(str, secret)).encode() in whole
        or ",".join(map(str, secret)).encode() in whole
        or any(text in whole for text in in_base64(secret))
    }
