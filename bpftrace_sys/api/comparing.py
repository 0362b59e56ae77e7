"""Two traces held against each other, and a trace against a lock file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from bpftrace_sys.api.trace import Trace
from bpftrace_sys.compare.diff.compare import compare
from bpftrace_sys.compare.diff.differences import Differences
from bpftrace_sys.compare.diff.options import KINDS, Options
from bpftrace_sys.compare.diff.side import caveats, narrowed
from bpftrace_sys.compare.diff.whole import whole
from bpftrace_sys.compare.policy.lock_file import load
from bpftrace_sys.compare.policy.verdicts import Verdict, judge_deeds
from bpftrace_sys.trace.header import Header

Path = str | os.PathLike[str]


class Diff:
    """What differs between two traces; false where nothing does."""

    def __init__(
        self, found: Differences, paths: tuple[str, str], headers: tuple[Header, Header],
        remarks: list[str],
    ) -> None:  # fmt: skip
        self._found = found
        self._paths = paths
        self._headers = headers
        self.remarks = remarks
        """What makes the comparison less sure: other kernels, other options."""

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def json(self) -> dict[str, Any]:
        """As ``bpfstrace diff --json`` prints it."""
        from bpftrace_sys.render.diff import as_json

        return dict(as_json(self._found, self._paths))

    @property
    def lines(self) -> list[str]:
        """As ``bpfstrace diff`` prints it, without colours."""
        from bpftrace_sys.render.diff import text
        from bpftrace_sys.render.style import plain_painter

        return list(text(self._found, self._paths, self._headers, plain_painter))

    def __str__(self) -> str:
        return "\n".join(self.lines)


def diff(
    a: Trace | Path,
    b: Trace | Path,
    *,
    only: Iterable[str] = (),
    ignore: Iterable[str] = (),
    strict: bool = False,
) -> Diff:
    """What differs between two whole traces, by meaning (``bpfstrace diff``).

    ``only``: parts to compare, of ``progs``, ``maps``, ``attachments``. ``ignore``: fields to
    leave out. ``strict``: also what was read from maps, how often, and logs. ValueError where
    what one of them leaves out cannot be compared, TraceError where one is not whole.
    """
    chosen = frozenset(only)
    if not chosen <= set(KINDS):
        raise ValueError(f"only: {', '.join(sorted(chosen - set(KINDS)))}: none of {KINDS}")
    paths = (_path(a), _path(b))
    first, second = whole(paths[0], strict), whole(paths[1], strict)
    if narrowed(first) != narrowed(second):
        raise ValueError("one of the traces leaves out what the other holds (-e, -P, -z, -Z)")
    found = compare(first, second, Options(chosen, tuple(ignore), strict))
    assert first.header is not None
    assert second.header is not None
    return Diff(found, paths, (first.header, second.header), list(caveats(first, second)))


def check(trace: Trace | Path, lock: Path) -> Verdict:
    """Holds a trace against a lock file (``bpfstrace check``).

    The verdict's ``outside`` lists what the file does not allow. A damaged or partial trace
    is never within: ``trouble`` says why. LockError where the lock file is not right,
    TraceError where the trace is damaged.
    """
    if not isinstance(trace, Trace):
        trace = Trace(trace)
    path = os.fspath(lock)
    rules = load(path)
    judged = judge_deeds(trace._teller.deeds, rules, trace.path, path)
    if trace.damage:
        judged.trouble = trace.damage
    return judged


def _path(trace: Trace | Path) -> str:
    return trace.path if isinstance(trace, Trace) else os.fspath(trace)
