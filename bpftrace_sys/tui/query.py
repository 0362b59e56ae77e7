"""The words that filter calls, the same as on the report page (docs/report.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from bpftrace_sys.render.html import records
from bpftrace_sys.render.html.painting import unmarked
from bpftrace_sys.render.html.records import CallRow, Report

Test = Callable[[CallRow], bool]

_WORD: Final = re.compile(r'(?:[^\s"]|"[^"]*"?)+')
_KEYED: Final = re.compile(r"(-?)(cmd|pid|tid|comm|obj|is|ret|seq):(.*)", re.IGNORECASE | re.DOTALL)
STATES: Final[dict[str, Test]] = {
    "failed": lambda row: bool(row.flags & records.FAILED) and not row.group,
    "probe": lambda row: row.group > 0,
    "unfinished": lambda row: bool(row.flags & records.UNFINISHED),
    "injected": lambda row: bool(row.flags & records.INJECTED),
}
"""What ``is:`` may be followed by."""


class Query:
    """Words, all of which a call has to match; none: all calls do."""

    def __init__(self, text: str, report: Report) -> None:
        self.text = text.strip()
        self._report = report
        self._tests = [self._test(word) for word in _WORD.findall(self.text)]

    def __bool__(self) -> bool:
        return bool(self._tests)

    def __call__(self, row: CallRow) -> bool:
        return all(test(row) for test in self._tests)

    def _test(self, word: str) -> Test:
        keyed = _KEYED.fullmatch(word)
        if keyed is not None:
            test = self._keyed(keyed[2].lower(), keyed[3].replace('"', "").lower())
            return (lambda row: not test(row)) if keyed[1] else test
        wanted = word.replace('"', "").lower()
        if wanted.startswith("-") and len(wanted) > 1:
            return lambda row: wanted[1:] not in self.text_of(row)
        return lambda row: wanted in self.text_of(row)

    def text_of(self, row: CallRow) -> str:
        """What plain words are looked for in, in small letters."""
        report = self._report
        thread = report.threads[row.thread]
        why = "\n".join(row.why) if isinstance(row.why, list) else ""
        return "\n".join(
            (unmarked(row.text), report.commands[row.command], row.subject, row.result,
             f"{thread.comm} {thread.pid} {thread.tid}", why, row.stack)
        ).lower()  # fmt: skip

    def _keyed(self, key: str, wanted: str) -> Test:
        report = self._report
        if key == "obj":
            return lambda row: any(
                wanted in (thing.anchor.lower(), thing.name.lower())
                for thing in (report.page_objects[number] for number in row.things)
            )
        if key == "is":
            return STATES.get(wanted, lambda row: False)
        tests: dict[str, Test] = {
            "cmd": lambda row: wanted in report.commands[row.command].lower(),
            "pid": lambda row: str(report.threads[row.thread].pid) == wanted,
            "tid": lambda row: str(report.threads[row.thread].tid) == wanted,
            "comm": lambda row: wanted in report.threads[row.thread].comm.lower(),
            "ret": lambda row: row.result.lower() == wanted,
            "seq": lambda row: str(row.seq) == wanted,
        }
        return tests[key]
