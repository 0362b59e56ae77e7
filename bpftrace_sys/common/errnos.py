"""Names of errors, as the kernel spells them."""

from __future__ import annotations

import errno
from typing import Final

from decoders.uapi import system

_KERNEL_SPELLING: Final = {
    errno.EOPNOTSUPP: "EOPNOTSUPP",
    errno.EDEADLK: "EDEADLK",
    133: "EHWPOISON",
}
"""Where Python's table has the other of two names (ENOTSUP looks like ENOTSUPP) or none."""


def errno_name(number: int) -> str:
    """EPERM, ENOTSUPP, or the number."""
    name = _KERNEL_SPELLING.get(number) or errno.errorcode.get(number)
    return name or system.kernel_errno.get(number) or str(number)
