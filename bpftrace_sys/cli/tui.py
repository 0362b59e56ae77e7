"""``bpfstrace tui TRACE``: a trace in the terminal, to look around."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.messages import DONE, OWN_FAILURE, TROUBLE, complain, fault_words
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.trace.reader import Reader

if TYPE_CHECKING:
    from bpftrace_sys.tui.app import Browser


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
    from bpftrace_sys.tui.reading import Reading

    reading = Reading(reader.header, reader, reader.position)
    browser = Browser(reading, path, dict(found[0]).get("--filter", ""))
    return shown(browser)


def lacking(what: str) -> None:
    """Raises BpfstraceError where a screen cannot be shown, and says what to do."""
    if find_spec("textual") is None:
        raise BpfstraceError(
            f"{what}: textual is not installed; pip install 'bpfstrace[tui]' brings it"
        )
    if not sys.stdout.isatty():
        raise BpfstraceError(f"{what}: it is drawn on a terminal, and stdout is none")
    if os.environ.get("TERM", "dumb") == "dumb":
        raise BpfstraceError(f"{what}: this terminal is dumb (TERM), nothing can be drawn on it")


def _spooled() -> IO[bytes]:
    """stdin in a file without a name, for it is read once more for an export; the keys come
    from the terminal from now on."""
    import shutil
    import tempfile

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
