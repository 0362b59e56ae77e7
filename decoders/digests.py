"""Hashes that name things and guard nothing.

Small data is hashed by the modules that hashlib itself falls back on: loading OpenSSL takes longer
than hashing a program of 10,000 instructions. Where they are not built in, and for large data, it
is hashlib.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import blake2b, sha1, sha256
    from typing import Final
else:
    try:
        from _blake2 import blake2b
        from _sha1 import sha1

        try:
            from _sha2 import sha256
        except ImportError:  # before Python 3.12
            from _sha256 import sha256
    except ImportError:
        from hashlib import blake2b, sha1, sha256

LARGE: Final = 1 << 20
"""Bytes from which OpenSSL is worth its loading."""


def sha1_of(data: bytes) -> bytes:
    """SHA-1; hosts that forbid it need not object."""
    if len(data) >= LARGE:
        import hashlib

        return hashlib.sha1(data, usedforsecurity=False).digest()
    return sha1(data, usedforsecurity=False).digest()


def sha256_of(data: bytes) -> bytes:
    """SHA-256."""
    if len(data) >= LARGE:
        import hashlib

        return hashlib.sha256(data, usedforsecurity=False).digest()
    return sha256(data, usedforsecurity=False).digest()


def short_of(data: bytes) -> bytes:
    """BLAKE2b, 16 bytes: to tell data apart within one process."""
    return blake2b(data, digest_size=16).digest()
