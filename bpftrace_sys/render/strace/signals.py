"""Signals as strace prints them: ``--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, ..."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from typing import Final

from bpftrace_sys.render.strace.constants import Constants
from bpftrace_sys.render.strace.quoting import address, hexa, s32
from decoders import arch as arches
from decoders.events import Signal
from decoders.uapi import perf

CODES: Final[dict[int, str]] = {
    0: "SI_USER", 0x80: "SI_KERNEL", -1: "SI_QUEUE", -2: "SI_TIMER", -3: "SI_MESGQ",
    -4: "SI_ASYNCIO", -5: "SI_SIGIO", -6: "SI_TKILL", -7: "SI_DETHREAD", -60: "SI_ASYNCNL",
}  # fmt: skip
"""include/uapi/asm-generic/siginfo.h, as what follows."""
NOINFO: Final = 32767
"""SI_NOINFO: nothing else in it means anything."""


NAMES: Final = str.split(
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP "
    "TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
"""From 1 on, of include/uapi/asm-generic/signal.h."""
REALTIME: Final = 32
"""The first one without a name of its own: libc's SIGRTMIN is 34."""


def _codes(prefix: str, names: str) -> dict[int, str]:
    return {number: f"{prefix}_{name}" for number, name in enumerate(names.split(), 1)}


OF: Final[dict[int, dict[int, str]]] = {
    signal.SIGILL: _codes("ILL", "ILLOPC ILLOPN ILLADR ILLTRP PRVOPC PRVREG COPROC BADSTK"),
    signal.SIGFPE: {
        **_codes("FPE", "INTDIV INTOVF FLTDIV FLTOVF FLTUND FLTRES FLTINV FLTSUB"),
        14: "FPE_FLTUNK", 15: "FPE_CONDTRAP",
    },
    signal.SIGSEGV: _codes(
        "SEGV", "MAPERR ACCERR BNDERR PKUERR ACCADI ADIDERR ADIPERR MTEAERR MTESERR CPERR"
    ),
    signal.SIGBUS: _codes("BUS", "ADRALN ADRERR OBJERR MCEERR_AR MCEERR_AO"),
    signal.SIGTRAP: _codes("TRAP", "BRKPT TRACE BRANCH HWBKPT UNK PERF"),
    signal.SIGCHLD: _codes("CLD", "EXITED KILLED DUMPED TRAPPED STOPPED CONTINUED"),
    signal.SIGIO: _codes("POLL", "IN OUT MSG ERR PRI HUP"),
    signal.SIGSYS: _codes("SYS", "SECCOMP USER_DISPATCH"),
}  # fmt: skip
"""Codes of the kernel's own, by signal."""
FAULTS: Final = frozenset({
    signal.SIGILL, signal.SIGFPE, signal.SIGBUS, signal.SIGSEGV, signal.SIGTRAP,
})  # fmt: skip
"""Those that come with an address."""


def signal_name(number: int) -> str:
    """SIGUSR1; SIGRT_2 for one without a name of its own."""
    if 0 < number < REALTIME:
        return f"SIG{NAMES[number - 1]}"
    return f"SIGRT_{number - REALTIME}" if REALTIME <= number <= 64 else str(number)


def signal_line(told: Signal, names: Constants) -> str:
    """What is said of a signal on its way to a thread, or of one that stops it."""
    name = signal_name(told.signal)
    if told.stopped:
        return f"--- stopped by {name} ---"
    try:
        info = bytes.fromhex(told.info)[:128]
    except ValueError:
        info = b""
    if len(info) < 32:
        return f"--- {name} ---"
    return f"--- {name} {{{', '.join(_fields(info.ljust(48, bytes(1)), names))}}} ---"


def _signal(number: int, names: Constants) -> str:
    """A signal as a field's value, as -X has it."""
    return names.named(str(number), signal_name(number)) if 0 < number <= 64 else str(number)


def _ticks(ticks: int) -> str:
    """A clock_t, with the seconds that it is: the kernel gives out a hundred a second (USER_HZ)."""
    return f"{ticks} /* {ticks // 100}.{ticks % 100:02} s */" if ticks else "0"


def _fields(info: bytes, names: Constants) -> Iterator[str]:
    """The fields of a siginfo_t of 64 bits that mean something, in strace's order."""

    def at(offset: int, size: int = 4) -> int:
        return int.from_bytes(info[offset : offset + size], "little")

    number, error, code = at(0), at(4), s32(at(8))
    yield f"si_signo={_signal(number, names)}"
    known = CODES.get(code) or OF.get(number, {}).get(code)
    yield f"si_code={names.named(hexa(code & 0xFFFFFFFF), known) if known else hexa(at(8))}"
    if code == NOINFO:
        return
    if error:
        name = errno.errorcode.get(error)
        yield f"si_errno={names.named(str(error), name) if name else error}"
    source = (f"si_pid={s32(at(16))}", f"si_uid={at(20)}")
    value = f"si_int={s32(at(24))}, si_ptr={address(at(24, 8))}"
    if code in (0, -6):
        yield from source
    elif code == -2:
        yield f"si_timerid={hexa(at(16))}"
        yield f"si_overrun={s32(at(20))}"
        yield value
    elif code == -5 or (number == signal.SIGIO and known is not None and code > 0):
        yield f"si_band={int.from_bytes(info[16:24], 'little', signed=True)}"
        yield f"si_fd={s32(at(24))}"
    elif code < 0:
        yield from source
        if at(24, 8):
            yield value
    elif number == signal.SIGCHLD:
        yield from source
        status = s32(at(24))
        yield f"si_status={status if code == 1 else _signal(status, names)}"
        yield f"si_utime={_ticks(at(32, 8))}"
        yield f"si_stime={_ticks(at(40, 8))}"
    elif number in FAULTS:
        yield f"si_addr={address(at(16, 8))}"
        yield from _more(number, code, at(24, 8), at(32, 8), at(40, 8), names)
    elif number == signal.SIGSYS:
        call = arches.name(at(28), at(24))
        yield f"si_call_addr={address(at(16, 8))}"
        yield f"si_syscall={f'__NR_{call}' if call else hexa(at(24))}"
        yield f"si_arch={names.xval(at(28), AUDIT, 'AUDIT_ARCH_???')}"
    elif number != signal.SIGIO:
        if at(16) or at(20):
            yield from source
        if at(24, 8):
            yield value


def _more(
    number: int, code: int, first: int, second: int, third: int, names: Constants
) -> Iterator[str]:
    """What comes with some faults besides the address."""
    if number == signal.SIGBUS and code in (4, 5):
        yield f"si_addr_lsb={hexa(first & 0xFFFF)}"
    elif number == signal.SIGSEGV and code == 3:
        yield f"si_lower={address(second)}"
        yield f"si_upper={address(third)}"
    elif number == signal.SIGSEGV and code == 4:
        yield f"si_pkey={second & 0xFFFFFFFF}"
    elif number == signal.SIGTRAP and code == 6:
        yield f"si_perf_data={hexa(first)}"
        yield f"si_perf_type={names.xval(second & 0xFFFFFFFF, perf.perf_type_id, 'PERF_TYPE_???')}"
        flags = names.flags(second >> 32, {1: "TRAP_PERF_FLAG_ASYNC"}, "TRAP_PERF_FLAG_???")
        yield f"si_perf_flags={flags}"


AUDIT: Final = {
    0xC000003E: "AUDIT_ARCH_X86_64", 0x40000003: "AUDIT_ARCH_I386",
    0xC00000B7: "AUDIT_ARCH_AARCH64", 0x40000028: "AUDIT_ARCH_ARM",
}  # fmt: skip
"""include/uapi/linux/audit.h: EM_* of linux/elf-em.h and bits for 64-bit and little-endian."""
