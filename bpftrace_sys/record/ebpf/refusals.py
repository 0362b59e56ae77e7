"""Why the eBPF engine cannot run here, in one sentence, and what helps."""

from __future__ import annotations

import errno
import os
from typing import Final

from bpftrace_sys.record.ebpf.loader import LoadError
from bpftrace_sys.record.proc import status

LOCKDOWN: Final = "/sys/kernel/security/lockdown"
VMLINUX: Final = "/sys/kernel/btf/vmlinux"
CAP_BPF: Final = 39
CAP_PERFMON: Final = 38
CAP_SYS_ADMIN: Final = 21
INSTEAD: Final = "--engine ptrace needs none of this"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096)
    except OSError:
        return ""


def _capable(*numbers: int) -> bool:
    effective = int(status("self")["CapEff"], 16)
    return all(effective >> number & 1 for number in numbers)


def why(error: LoadError) -> str:
    """The sentence for a refusal of the kernel's."""
    head = "cannot watch by eBPF: "
    if "[confidentiality]" in _read(LOCKDOWN):
        return (
            f"{head}the kernel is locked down (confidentiality), so BPF programs may not read "
            f"memory; {INSTEAD}"
        )
    if error.errno in (errno.EPERM, errno.EACCES) and not (
        _capable(CAP_SYS_ADMIN) or _capable(CAP_BPF, CAP_PERFMON)
    ):
        return f"{head}that takes root, or CAP_BPF and CAP_PERFMON; {INSTEAD}"
    if not os.path.exists(VMLINUX):
        return (
            f"{head}this kernel has no BTF ({VMLINUX}; CONFIG_DEBUG_INFO_BTF), by which the "
            f"programs find what they read; {INSTEAD}"
        )
    if "ring" in error.what and error.errno == errno.EINVAL:
        return f"{head}this kernel has no ring buffer (Linux 5.8); {INSTEAD}"
    if "ring" in error.what and error.errno == errno.ENOMEM:
        return f"{head}there is no memory for the ring; try a smaller one: --ring 8M"
    if error.errno == errno.E2BIG or "unknown func" in error.log or "bpf_loop" in error.log:
        return (
            f"{head}this kernel is too old for the programs (bpf_loop and relocations by the "
            f"kernel came with Linux 5.17); {INSTEAD}"
        )
    last = [line for line in error.log.strip().splitlines() if not line.startswith("processed")]
    said = f" ({last[-1].strip()})" if last else ""
    return f"{head}{error}{said}; {INSTEAD}"
