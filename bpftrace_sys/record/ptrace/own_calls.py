"""System calls that the ptrace loop itself has to see, whatever the sink wants."""

from __future__ import annotations

from bpftrace_sys.record.ptrace.stop_filter import ArgRule, StopFilter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


# Calls that the loop itself wants to see, whatever the sink wants.
_PR_SET_NAME: Final = 15
_PR_SET_SECCOMP: Final = 22
_SECCOMP_SET_MODE_STRICT: Final = 0
_SECCOMP_SET_MODE_FILTER: Final = 1
_PTRACE_TRACEME: Final = 0
_PTRACE_ATTACH: Final = 16
_PTRACE_SEIZE: Final = 0x4206
_CLONE_UNTRACED: Final = 0x00800000
_WATCH: Final = StopFilter(
    {
        "prctl": ArgRule(0, frozenset({_PR_SET_NAME, _PR_SET_SECCOMP})),
        "seccomp": ArgRule(0, frozenset({_SECCOMP_SET_MODE_STRICT, _SECCOMP_SET_MODE_FILTER})),
        "ptrace": ArgRule(0, frozenset({_PTRACE_TRACEME, _PTRACE_ATTACH, _PTRACE_SEIZE})),
        "clone": ArgRule(0, frozenset({_CLONE_UNTRACED}), mask=_CLONE_UNTRACED),
        "clone3": None,  # its flags are in memory
    }
)
