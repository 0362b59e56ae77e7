"""A trace that is being written, read as far as it is there."""

from __future__ import annotations

from collections.abc import Iterator

from bpftrace_sys.trace.items import Item
from bpftrace_sys.trace.reader import LINE_LIMIT, NOT_ASCII, Reader


def begun(path: str) -> bool:
    """Whether the first line is there, which is the header."""
    try:
        with open(path, "rb") as file:
            return file.readline(LINE_LIMIT).endswith(b"\n")
    except OSError:
        return False


class Growing(Reader):
    """A Reader of an uncompressed file to which somebody still writes."""

    def __init__(self, path: str) -> None:
        self._part = bytearray()
        """A line of which the end is not there yet."""
        super().__init__(path)

    def _read(self) -> bytes | bytearray:
        """A line that is there to its end; empty where there is none."""
        text = super()._read()
        if not self._part and text.endswith(b"\n"):
            return text
        self._part += text
        if len(self._part) >= LINE_LIMIT:
            raise self._error(f"a line of more than {LINE_LIMIT} bytes")
        if len(self._part) > NOT_ASCII and not self._part.isascii():
            raise self._error(f"a line of more than {NOT_ASCII} bytes that are not ASCII")
        if not self._part.endswith(b"\n"):
            return b""
        text, self._part = self._part, bytearray()
        return text

    def ready(self) -> Iterator[Item]:
        """The items that are there by now and were not given before."""
        while self._next():
            item = self._shapes.read(self._line) or self._held()
            if item is not None:
                yield item
        self.line -= 1  # the one that there is not yet

    def finish(self) -> None:
        """Nobody writes any more; TraceError where the end is not there."""
        if not self.whole:
            raise self._error("the trace ends without its end line")
