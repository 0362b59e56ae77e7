"""``bpfstrace tui TRACE``: a trace in the terminal, to look around."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any, Final

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.messages import DONE, OWN_FAILURE, TROUBLE, complain, fault_words
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.common.escape import printable
from bpftrace_sys.trace.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from bpftrace_sys.cli.settings import Settings
    from bpftrace_sys.tui.app import Browser


TEXTUAL: Final = 8
"""The oldest release of textual that was tried and does (pyproject.toml)."""


def main(words: list[str]) -> int:
    """``bpfstrace tui`` with what follows it; returns the exit code."""
    found = arguments("tui", words)
    if found is None:
        return DONE
    paths = found[1]
    if len(paths) != 1:
        raise UsageError("tui takes one trace file: bpfstrace tui TRACE")
    lacking("tui")
    path = paths[0]
    spooled = None
    if path == "-":
        spooled = _spooled()
        path = f"/proc/self/fd/{spooled.fileno()}"
    elif not sys.stdin.isatty():
        raise BpfstraceError("tui: the keys come from the terminal, and stdin is none")
    reader = Reader(path)

    from bpftrace_sys.tui.app import Browser
    from bpftrace_sys.tui.reading import FileReading

    reading = FileReading(reader)
    browser = Browser(reading, path, dict(found[0]).get("--filter", ""))
    return shown(browser)


def lacking(what: str) -> None:
    """Raises BpfstraceError where a screen cannot be shown, and says what to do."""
    if find_spec("textual") is None:
        raise BpfstraceError(
            f"{what}: textual is not installed; pip install 'bpfstrace[tui]' brings it"
        )
    known = version("textual")
    major = known.partition(".")[0]
    if not major.isdecimal() or int(major) < TEXTUAL:
        raise BpfstraceError(
            f"{what}: textual {known} is too old, {TEXTUAL} is needed; "
            "pip install 'bpfstrace[tui]' brings it"
        )
    if not sys.stdout.isatty():
        raise BpfstraceError(f"{what}: it is drawn on a terminal, and stdout is none")
    if os.environ.get("TERM", "dumb") == "dumb":
        raise BpfstraceError(f"{what}: this terminal is dumb (TERM), nothing can be drawn on it")


def _spooled() -> IO[bytes]:
    """stdin in a file without a name, for it is read once more for an export; the keys come
    from the terminal from now on."""
    try:
        file: Any = tempfile.TemporaryFile("w+b")  # noqa: SIM115
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError as error:
        raise BpfstraceError(f"tui: {error.filename or 'stdin'}: {error.strerror}") from None
    os.dup2(terminal, 0)
    os.close(terminal)
    return file  # type: ignore[no-any-return]


def live(settings: Settings, traced: Callable[[], int]) -> int:
    """``bpfstrace --tui PROG``: traces below a terminal of its own, and shows it meanwhile.

    ``traced`` does what the settings say then, and gives the exit code.
    """
    lacking("--tui")
    if not sys.stdin.isatty():
        raise BpfstraceError("--tui: the keys come from the terminal, and stdin is none")
    from bpftrace_sys.tui.keeper import keep

    folder = ""
    if settings.json is None:
        folder = tempfile.mkdtemp(prefix="bpfstrace-tui-")
        settings.json = f"{folder}/trace.jsonl"
    path = settings.json
    if settings.output is None:
        # Nobody reads the text, and so there is none.
        settings.output, settings.counts = os.devnull, True
    size = os.get_terminal_size(sys.stdout.fileno())
    kept = keep(lambda: _trace(traced), size.lines, size.columns)

    from bpftrace_sys.tui.live import LiveBrowser

    attached = bool(settings.pids or settings.everybody)
    browser = LiveBrowser(kept, path, _about(settings), attached)
    code = shown(browser)
    if browser.reading.done:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
    else:
        # So it is, too, where the browser is at fault.
        complain(f"{_about(settings)} goes on, and is traced to {path}")
        return code
    if code or kept.status is None or browser.let_go:
        return code
    status = os.waitstatus_to_exitcode(kept.status)
    return status if status >= 0 else 128 - status


def _about(settings: Settings) -> str:
    """What is traced, in few words."""
    if settings.args:
        return printable(settings.args[0])
    return "the machine" if settings.everybody else f"process {', '.join(map(str, settings.pids))}"


def _trace(traced: Callable[[], int]) -> int:
    """In the tracer's process, whose errors nobody else prints."""
    try:
        return traced()
    except BpfstraceError as error:
        complain(str(error))
        return TROUBLE
    except Exception as error:
        complain(fault_words(error))
        return OWN_FAILURE


def shown(browser: Browser) -> int:
    """Runs it, and says in the end what there is to say; the exit code."""
    browser.run()
    if browser.fault is not None:
        complain(fault_words(browser.fault))
        return OWN_FAILURE
    for text in browser.reading.faults:
        complain(text)
    if browser.trouble:
        complain(browser.trouble)
        return TROUBLE
    if browser.reading.damage:
        complain(f"{browser.reading.damage}; what stood before was shown")
        return TROUBLE
    return OWN_FAILURE if browser.reading.faults else DONE
