"""The pytest plugin: tests of programs that load eBPF (docs/pytest.md).

pytest imports this module wherever bpfstrace is installed, so it imports nothing of ours until
a test asks for the fixture.
"""

from __future__ import annotations

import fnmatch
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from bpftrace_sys.api import (
        Attachment,
        Link,
        Map,
        Named,
        Program,
        Refusal,
        Trace,
        Verdict,
    )

MARK: Final = "bpf_recorded"
TOLD: Final = 5
"""Refusals that are told of with a failed test."""
_TRACES: Final = pytest.StashKey[list["TestedTrace"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--bpf-record."""
    group = parser.getgroup("bpfstrace")
    group.addoption(
        "--bpf-record",
        action="store_true",
        help=f"run what tests with @pytest.mark.{MARK} replay, and record it anew",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker's description, for --markers and --strict-markers."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(file): bpf_trace replays this recording instead of running the command; "
        "with --bpf-record it runs the command and records it there",
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What was refused and attached stands below a test that failed."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed and report.when == "call":
        for trace in item.stash.get(_TRACES, []):
            report.sections.append((f"bpfstrace: {shlex.join(trace.argv)}", trace.summary()))


@pytest.fixture
def bpf_trace(request: pytest.FixtureRequest) -> BpfTrace:
    """Runs a command under bpfstrace: ``bpf_trace(["./loader", "-v"])`` gives a TestedTrace."""
    return BpfTrace(request)


class BpfTrace:
    """What the fixture ``bpf_trace`` is."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._traces = request.node.stash.setdefault(_TRACES, [])
        self._record = bool(request.config.getoption("--bpf-record"))
        marker = request.node.get_closest_marker(MARK)
        self._file: Path | None = None
        if marker is not None:
            if len(marker.args) != 1 or not isinstance(marker.args[0], str | os.PathLike):
                pytest.fail(f"@pytest.mark.{MARK} takes one file", pytrace=False)
            self._file = request.path.parent / marker.args[0]
        self._count = 0

    def __call__(
        self, command: str | Sequence[str | os.PathLike[str]], **options: Any
    ) -> TestedTrace:
        """Runs a command, or replays its recording.

        A string is split as a shell would. ``options`` are those of bpftrace_sys.run().
        """
        words = shlex.split(command) if isinstance(command, str) else list(command)
        words = [os.fspath(word) for word in words]
        self._count += 1
        file = self._recording()
        made = self._run(words, file, options) if file is None or self._record else None
        if made is None:
            assert file is not None
            made = self._replayed(words, file)
        self._traces.append(made)
        return made

    def _recording(self) -> Path | None:
        """Where the recording of this call is; a second one of a test has a number."""
        if self._file is None or self._count == 1:
            return self._file
        name, dot, ending = self._file.name.partition(".")
        return self._file.with_name(f"{name}-{self._count}{dot}{ending}")

    def _run(self, words: list[str], file: Path | None, options: dict[str, Any]) -> TestedTrace:
        import bpftrace_sys

        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        try:
            done = bpftrace_sys.run(words, save=file, **options)
        except bpftrace_sys.RunError as error:
            pytest.fail(f"{shlex.join(words)}: {error}", pytrace=False)
        return TestedTrace(done, done.returncode, done.stdout, done.stderr)

    def _replayed(self, words: list[str], file: Path) -> TestedTrace:
        import bpftrace_sys

        try:
            trace = bpftrace_sys.open_trace(file)
            code = trace.exit_code
        except bpftrace_sys.TraceError as error:
            pytest.fail(f"{error}; pytest --bpf-record records it", pytrace=False)
        recorded = [os.path.basename(word) for word in trace.argv[:1]]
        if recorded != [os.path.basename(word) for word in words[:1]]:
            pytest.fail(
                f"{file} is a recording of {shlex.join(trace.argv)}, not of {shlex.join(words)}; "
                "pytest --bpf-record records it anew",
                pytrace=False,
            )
        if code is None:
            code = -(trace.signal or 0)
        return TestedTrace(trace, code, "", "")


class TestedTrace:
    """A trace with assertions.

    It has all that a Trace has (``programs``, ``maps``, ``refusals``, ``calls()``, ...) besides.
    """

    __test__ = False  # pytest would take it for a class of tests

    def __init__(self, trace: Trace, returncode: int, stdout: str, stderr: str) -> None:
        self.trace = trace
        """The trace as bpftrace_sys gives it."""
        self.returncode = returncode
        """The command's exit code; negative: the signal that ended it."""
        self.stdout = stdout
        self.stderr = stderr
        """What the command wrote; empty where a recording is replayed."""

    @property
    def programs(self) -> Named[Program]:
        """As of a Trace."""
        return self.trace.programs

    @property
    def maps(self) -> Named[Map]:
        """As of a Trace."""
        return self.trace.maps

    @property
    def links(self) -> Named[Link]:
        """As of a Trace."""
        return self.trace.links

    @property
    def attachments(self) -> list[Attachment]:
        """As of a Trace."""
        return self.trace.attachments

    @property
    def refusals(self) -> list[Refusal]:
        """As of a Trace."""
        return self.trace.refusals

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trace, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.trace)

    # ------------------------------------------------------------ assertions

    def assert_loaded(self, program: str) -> Program:
        """A program of that name was loaded; gives it."""
        __tracebackhide__ = True
        found = self.trace.programs.all(program)
        taken = [each for each in found if each.refused is None]
        if taken:
            return taken[-1]
        if not found:
            names = ", ".join(self.trace.programs.names) or "none"
            self._fail(f"no program {program!r} was loaded; there are: {names}")
        self._fail(f"the kernel refused the program {program!r}", found[-1])
        raise AssertionError  # _fail() has raised

    def assert_attached(self, program: str, target: str | None = None) -> None:
        """A program was attached: to a target, in which * stands for any text, or anywhere."""
        __tracebackhide__ = True
        found = self.assert_loaded(program)
        targets = [
            each for known in self.trace.programs.all(program) for each in known.attached_to
        ]
        if any(target is None or _matches(target, each) for each in targets):
            return
        wanted = "anywhere" if target is None else f"to {target!r}"
        there = ", ".join(targets) or "nothing"
        self._fail(f"{program} was not attached {wanted}; it was attached to: {there}", found)

    def assert_only_helpers(self, program: str, *helpers: str) -> None:
        """A program's instructions call no helpers and kfuncs but these; * is any text.

        ``program`` may hold *, too: then it holds for all programs whose names match.
        """
        __tracebackhide__ = True
        known = [each for each in self.trace.programs if _matches(program, each.name)]
        if not known:
            names = ", ".join(self.trace.programs.names) or "none"
            self._fail(f"no program is named {program!r}; there are: {names}")
        for each in known:
            called = [*each.helpers, *each.kfuncs]
            more = [
                name for name in called if not any(_matches(helper, name) for helper in helpers)
            ]
            if more:
                places = [
                    f"  {insn}   {_line_of(each, insn.pc)}"
                    for insn in each.instructions
                    if any(f" {name}#" in f"{insn.text}#" for name in more)
                ]
                self._fail("\n".join([f"{each.name} calls {', '.join(more)}", *places]))

    def assert_matches_lock(self, lock: str | os.PathLike[str]) -> Verdict:
        """The trace does nothing that the lock file does not allow (``bpfstrace check``)."""
        __tracebackhide__ = True
        import bpftrace_sys

        verdict = bpftrace_sys.check(self.trace, lock)
        if verdict.trouble:
            self._fail(f"the trace proves nothing: {verdict.trouble}")
        if verdict.outside:
            lines = [f"outside {os.fspath(lock)}:"]
            for outside in verdict.outside:
                place = outside.where.place
                where = f"  {place.where}: {place.source}" if place and place.file else ""
                lines.append(f"  {outside.text}  [{outside.where}]{where}")
            self._fail("\n".join(lines))
        return verdict

    def assert_nothing_refused(self) -> None:
        """The kernel refused nothing in the end, but for feature probes."""
        __tracebackhide__ = True
        refusals = self.trace.refusals
        if refusals:
            self._fail(f"the kernel refused {len(refusals)} calls")

    # ------------------------------------------------------------ telling

    def summary(self) -> str:
        """What was refused, with the source line, and what was attached."""
        lines = [f"exit code {self.returncode}"]
        lines += [str(each) for each in self.trace.attachments]
        refusals = self.trace.refusals
        for refusal in refusals[:TOLD]:
            about = f" of {refusal.name}" if refusal.name else ""
            lines.append(f"refused: {refusal.command}{about} = {refusal.errno}")
            lines += [f"  {line}" for line in refusal.lines or [refusal.message]]
        if len(refusals) > TOLD:
            lines.append(f"and {len(refusals) - TOLD} more refusals")
        said = self.stderr.splitlines()[-TOLD:]
        lines += ["the last of stderr:", *(f"  {line}" for line in said)] if said else []
        return "\n".join(lines)

    def _fail(self, message: str, program: Program | None = None) -> None:
        __tracebackhide__ = True
        if program is not None and program.refused is not None:
            refusal = program.refused
            lines = refusal.lines or [refusal.message]
            message = "\n".join([f"{message}: {refusal.errno}", *(f"  {line}" for line in lines)])
        raise AssertionError(message)

    def __repr__(self) -> str:
        return f"<TestedTrace of {shlex.join(self.trace.argv)}>"


def _matches(pattern: str, text: str) -> bool:
    """Whether text matches, where * stands for any text and nothing else is special."""
    escaped = pattern.replace("[", "[[]").replace("?", "[?]")
    return fnmatch.fnmatchcase(text, escaped)


def _line_of(program: Program, pc: int) -> str:
    """The source line that an instruction belongs to."""
    line = ""
    for insn in program.instructions:
        if insn.pc > pc:
            break
        if insn.source:
            line = f"; {insn.where}: {insn.source}"
    return line
