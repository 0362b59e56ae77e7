"""bpfstrace: strace for eBPF.

For programs: ``open_trace``, ``run``, ``diff``, ``check`` and the classes of what they give
(docs/api.md). They are imported when they are first used, so that the command line starts as
fast as without them; their types stand in __init__.pyi beside this file.
"""

__version__ = "0.2.0"

_API = frozenset(
    {
        "Attachment", "Call", "Diff", "Instruction", "Link", "LockError", "Map", "Named", "Outside",
        "Place", "Program", "Refusal", "Run", "RunError", "RunTimeoutError", "Trace", "TraceError",
        "Verdict", "check", "diff", "open_trace", "run",
    }
)  # fmt: skip
"""The names of bpftrace_sys.api."""
__all__ = ["__version__", *sorted(_API)]


def __getattr__(name):  # type: ignore[no-untyped-def]
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("bpftrace_sys.api"), name)


def __dir__():  # type: ignore[no-untyped-def]
    return sorted({*globals(), *_API})
