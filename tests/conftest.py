"""Options and fixtures of all tests; what else they share is in tests/support."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.examples import register_profiles
from tests.support.needs import may_bpf
from tests.support.running import Ran, run_cli
from tests.support.without_bpf import give_up_bpf

# In the background of a script both are ignored, and so they would be by all that tests start.
for _number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        )

# Read already; a pytest that a test starts is to have none of this one's options.
os.environ.pop("PYTEST_ADDOPTS", None)

register_profiles()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="rewrite golden outputs from what comes out now"
    )
    parser.addoption(
        "--vm", action="store_true", help="also boot virtual machines, which takes minutes"
    )


LIVE_FOLDERS = {"record", "clients", "tracees", "cli"}
LIVE_LEFT = pytest.StashKey[int]()
GIVEN_UP = pytest.StashKey[bool]()
WITHOUT = "bpf(2), perf_event_open(2) and ptrace(2) fail in offline tests: is this a live one?"
LIVE_FIXTURES = {"needs_bpf", "traced", "tracefs", "kernel"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test ``live`` or ``offline``: by its fixtures, by a mark, or by its folder.

    Those that are offline come last, as bpf(2) is gone for good with the first of them.
    """
    for item in items:
        if LIVE_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("live", append=False)
        elif not any(item.get_closest_marker(name) for name in ("live", "offline")):
            item.add_marker("live" if item.path.parent.name in LIVE_FOLDERS else "offline")
    items.sort(key=_offline)


def _offline(item: pytest.Item) -> bool:
    return item.get_closest_marker("live") is None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Counts what is still to come that needs BPF: with --ff, that is not in the order above."""
    session.config.stash[LIVE_LEFT] = sum(not _offline(item) for item in session.items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Holds the marks: what says that it needs no BPF gets none, nor do the programs it starts."""
    stash = item.config.stash
    if not _offline(item):
        stash[LIVE_LEFT] -= 1
    elif not stash[LIVE_LEFT] and not stash.get(GIVEN_UP, False):
        stash[GIVEN_UP] = True
        give_up_bpf()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Says of a failed offline test what it had to do without."""
    report = yield
    if report.failed and item.config.stash.get(GIVEN_UP, False):
        report.sections.append(("offline", WITHOUT))
    return report


@pytest.fixture
def bless(request: pytest.FixtureRequest) -> bool:
    """Whether goldens are to be rewritten."""
    return bool(request.config.getoption("--bless"))


@pytest.fixture
def traced(tmp_path: Path) -> Any:
    """Traces a program: ``traced([options], program, arg, ...) -> Ran``."""

    def run(options: list[str], *program: str, **kwargs: Any) -> Ran:
        text, trace = tmp_path / "trace.txt", tmp_path / "trace.jsonl"
        done = run_cli("-o", str(text), "--json", str(trace), *options, *program, **kwargs)
        lines = [json.loads(line) for line in trace.read_text().splitlines()]
        return Ran(done.returncode, done.stdout, done.stderr, text.read_text(), lines)

    return run


@pytest.fixture(scope="session")
def needs_bpf() -> None:
    """Skips where bpf(2) does not work."""
    why = may_bpf()
    if why is not None:
        pytest.skip(why)


@pytest.fixture(scope="session")
def tracefs(needs_bpf: None) -> Path:
    """tracefs's mount point; skips where there is none."""
    for path in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        if os.path.exists(f"{path}/events"):
            return Path(path)
    pytest.skip("tracefs is not mounted")
