"""What is written to: a row for each output, from its option to its file.

Options, live tracing with either engine, and replay share the rows; the renderers are in
renderers.py, a function a row. All is opened before anything is traced or read, so that what
cannot be had is said at once, and closed in the end, when it is said what was lost.
"""

from __future__ import annotations

import sys

from bpftrace_sys.render.output import Output, close, created, open_json, open_page
from bpftrace_sys.render.text_output import open_text
from decoders.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Final

    from bpftrace_sys.cli.settings import Settings
    from bpftrace_sys.render.output import Files


class Row(NamedTuple):
    """An output."""

    option: str
    """Its long name, of a row of OPTIONS."""
    asked: Callable[[Settings], bool]
    """Whether the settings ask for it."""
    open: Callable[[Settings, Output | None], Output]
    """Opens it; is given the text's, once that is open. Raises OutputError."""
    selected: bool = False
    """Whether -z, -Z, -P and -e prog= choose what it shows; else it has all."""
    without_calls: bool = False
    """Whether it says something of a trace without calls."""


def _open_text(settings: Settings, text: Output | None) -> Output:
    if settings.replayed and settings.output is None and settings.json != "-":
        # Replayed text is the output asked for.
        return Output(sys.stdout, "<stdout>")
    return open_text(settings.output, sys.stderr, settings.append, settings.split)


def _open_json(settings: Settings, text: Output | None) -> Output:
    assert settings.json is not None
    return open_json(settings.json)


def _open_page(settings: Settings, text: Output | None) -> Output:
    assert settings.report is not None
    return open_page(settings.report)


def _open_events(settings: Settings, text: Output | None) -> Output:
    assert settings.events is not None
    if settings.events == "-":
        return open_text("-", sys.stderr)
    return Output(created(settings.events, append=True), settings.events)


def _open_annotations(settings: Settings, text: Output | None) -> Output:
    if text is not None and text.stream is sys.stderr:
        return text
    return Output(sys.stderr, "<stderr>")


TEXT: Final = Row("output", lambda settings: True, _open_text, selected=True)
JSON: Final = Row(
    "json", lambda settings: settings.json is not None, _open_json,
    selected=True, without_calls=True,
)  # fmt: skip
EVENTS: Final = Row("events", lambda settings: settings.events is not None, _open_events)
REPORT: Final = Row(
    "report", lambda settings: settings.report is not None, _open_page, without_calls=True
)
ANNOTATE: Final = Row("annotate", lambda settings: bool(settings.annotate), _open_annotations)
ROWS: Final = (TEXT, JSON, EVENTS, REPORT, ANNOTATE)
"""In the order in which they are told of a call."""


class Outputs:
    """The outputs of a run, open."""

    def __init__(self, rows: Mapping[Row, Output]) -> None:
        self._rows = rows
        self._files: list[Files] = []
        self._each: list[Output] = []
        """Each once, though two rows may share it."""
        for output in rows.values():
            if not any(output is other for other in self._each):
                self._each.append(output)

    @classmethod
    def asked(cls, settings: Settings) -> Outputs:
        """Opens what the settings ask for; OutputError where one cannot be had."""
        rows: dict[Row, Output] = {}
        for row in ROWS:
            if row.asked(settings):
                rows[row] = row.open(settings, rows.get(TEXT))
        return cls(rows)

    def at(self, row: Row) -> Output | None:
        """A row's output; None where it was not asked for."""
        return self._rows.get(row)

    @property
    def text(self) -> Output:
        """The text's, which is always there."""
        return self._rows[TEXT]

    def add(self, files: Files) -> None:
        """More that is to be closed in the end."""
        self._files.append(files)

    def __iter__(self) -> Iterator[Output]:
        return iter(self._each)

    @property
    def without_calls(self) -> bool:
        """Whether one besides the text says something of a trace without calls."""
        return any(row.without_calls for row in self._rows)

    @property
    def to_stdout(self) -> bool:
        """Whether stdout is written to."""
        return any(output.name == "<stdout>" for output in self)

    def flush(self) -> None:
        """Writes what waits to be."""
        for output in self:
            output.flush()

    def rest(self) -> None:
        """What was written can be read from now on."""
        for output in self._each:
            output.rest()
        for files in self._files:
            files.rest()

    def reopen(self) -> bool:
        """Begins those anew that somebody has moved. False: none is a file."""
        files = [output for output in self if output.is_file]
        for output in files:
            output.reopen()
        return bool(files)

    def close(self, *, pipes: bool = True) -> bool:
        """Closes all; False if anything was lost, which is said. ``pipes``: also what a reader
        did not want to read to its end."""
        return close([*self, *self._files], pipes=pipes)
