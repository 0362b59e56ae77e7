"""Lists of any length, of which the lines are made that are looked at."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from bpftrace_sys.render.html.painting import unmarked
from bpftrace_sys.tui.details import Line
from bpftrace_sys.tui.painted import Palette, wrapped

TURN: Final = 1_000
"""Lines that are searched at once."""
AHEAD: Final = 4
"""Heights of the pane for which details are made beyond what is shown."""


class Pane(ScrollView, can_focus=True):
    """Lines with a cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "down", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("pagedown,ctrl+f,space", "page(1)", "a page down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "a page up", show=False),
        Binding("home,g", "first", "first", show=False),
        Binding("end,G", "last", "last, and follow what comes", show=False),
        Binding("enter", "choose", "details; from there: go where the line leads", show=False),
    ]
    DEFAULT_CSS = """
    Pane {
        border: round $panel-lighten-2;
        scrollbar-size: 1 1;
        overflow-x: hidden;
        background: $background;
        border-title-color: $text-muted;
    }
    Pane:focus { border: round $accent; border-title-color: $accent; }
    Pane > .pane--cursor { background: $primary 45%; }
    Pane > .pane--at { background: $panel; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"pane--cursor", "pane--at"}
    MARKED: ClassVar[bool] = True
    """The line that was chosen is seen from other panes, too."""

    class Moved(Message):
        """The cursor is on another line, or on a new one."""

        def __init__(self, pane: Pane) -> None:
            super().__init__()
            self.pane = pane

    class Chosen(Message):
        """Enter was pressed on a line, or it was clicked twice."""

        def __init__(self, pane: Pane) -> None:
            super().__init__()
            self.pane = pane

    def __init__(self, palette: Palette, id: str) -> None:
        super().__init__(id=id)
        self.palette = palette
        self.cursor = 0
        self.following = False
        """The cursor stays on the last line when others come."""

    # ------------------------------------------------------------ what is in it

    @property
    @abstractmethod
    def count(self) -> int:
        """Lines."""

    @abstractmethod
    def painted(self, at: int) -> str:
        """A line's text, with marks."""

    def plain(self, at: int) -> str:
        """A line's text as it is searched and copied."""
        return unmarked(self.painted(at)).rstrip()

    # ------------------------------------------------------------ showing

    def fresh(self) -> None:
        """Its lines are others, or more."""
        if self.following:
            self.cursor = max(self.count - 1, 0)
        self.cursor = min(self.cursor, max(self.count - 1, 0))
        size = Size(max(self.scrollable_content_region.width, 1), self.count)
        if size != self.virtual_size:
            self.virtual_size = size
        if self.following:
            self._show_cursor()
        self.refresh()

    def on_resize(self) -> None:
        """Room for more or fewer lines."""
        self.fresh()
        self._show_cursor()

    def render_line(self, y: int) -> Strip:
        """As textual asks for them: a line of the screen."""
        width = self.scrollable_content_region.width
        at = y + self.scroll_offset.y
        base = self.rich_style
        if at >= self.count:
            return Strip.blank(width, base)
        style = base
        if at == self.cursor and (self.has_focus or self.MARKED):
            name = "pane--cursor" if self.has_focus else "pane--at"
            style = base + Style(bgcolor=self.get_component_rich_style(name).bgcolor)
        segments: list[Segment] = self.palette.segments(self.painted(at))
        return Strip(segments).crop_extend(0, width, Style.null()).apply_style(style)

    # ------------------------------------------------------------ moving

    def go(self, at: int, tell: bool = True) -> None:
        """The cursor goes to a line."""
        self.cursor = max(0, min(at, self.count - 1))
        self._show_cursor()
        self.refresh()
        if tell:
            self.post_message(self.Moved(self))

    def _show_cursor(self) -> None:
        height = self.scrollable_content_region.height
        top = self.scroll_offset.y
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, immediate=True)
        elif height and self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, immediate=True)

    def action_move(self, by: int) -> None:
        self.following = False
        self.go(self.cursor + by)

    def action_page(self, by: int) -> None:
        self.following = False
        self.go(self.cursor + by * max(self.scrollable_content_region.height - 1, 1))

    def action_first(self) -> None:
        self.following = False
        self.go(0)

    def action_last(self) -> None:
        self.following = True
        self.go(self.count - 1)

    def action_choose(self) -> None:
        self.post_message(self.Chosen(self))

    def on_click(self, event: events.Click) -> None:
        """A click puts the cursor there; a second one chooses."""
        at = int(event.get_content_offset_capture(self).y) + self.scroll_offset.y
        if at < self.count:
            self.following = False
            self.go(at)
            if event.chain > 1:
                self.action_choose()

    def seek(self, text: str, way: int = 1) -> Iterator[bool]:
        """Goes to the next line (or the one before) that holds a text, and yields True; before
        that False now and then: others are to have their turn."""
        wanted = text.lower()
        count = self.count if wanted else 0
        for step in range(1, count + 1):
            at = (self.cursor + way * step) % count
            if wanted in self.plain(at).lower():
                self.following = False
                self.go(at)
                yield True
                return
            if step % TURN == 0:
                yield False


class ListPane(Pane):
    """Lines that are at hand."""

    def __init__(self, palette: Palette, id: str, lines: Sequence[str] = ()) -> None:
        super().__init__(palette, id)
        self.lines = list(lines)

    @property
    def count(self) -> int:
        return len(self.lines)

    def painted(self, at: int) -> str:
        return self.lines[at]


class DetailPane(Pane):
    """Lines that lead elsewhere, wrapped; made as far as they are looked at."""

    # As wide with a scrollbar as without: lines are wrapped before it is known if there is one.
    DEFAULT_CSS = "DetailPane { scrollbar-gutter: stable; }"
    MARKED = False

    def __init__(self, palette: Palette, id: str) -> None:
        super().__init__(palette, id)
        self._rest: Iterator[Line] = iter(())
        self._lines: list[Line] = []
        self._shown: list[tuple[str, int]] = []
        """What stands on the screen's lines, and the number of the line that it is of."""
        self._width = 0

    @property
    def count(self) -> int:
        return len(self._shown)

    def painted(self, at: int) -> str:
        return self._shown[at][0]

    @property
    def line(self) -> Line | None:
        """The line under the cursor."""
        return self._lines[self._shown[self.cursor][1]] if self._shown else None

    def show(self, lines: Iterator[Line], stay: bool = False) -> None:
        """Other lines; ``stay``: they are mostly the same, and so is the place in them."""
        self._rest = lines
        self._lines, self._shown = [], []
        if not stay:
            self.cursor = 0
            self.scroll_to(y=0, animate=False, immediate=True)
        self._fill(self.cursor)
        self.fresh()

    def on_resize(self) -> None:
        """Lines are wrapped anew; textual calls a Pane's own after this one."""
        if self.scrollable_content_region.width != self._width:
            self._shown = []
            for number, line in enumerate(self._lines):
                self._wrap(number, line)
        self._fill(self.cursor)

    def _wrap(self, number: int, line: Line) -> None:
        width = self._width = self.scrollable_content_region.width
        self._shown += [(text, number) for text in wrapped(line.text, width, line.indent)]

    def _fill(self, upto: int | None) -> None:
        """Makes lines as far as somewhat beyond ``upto``; None: all of them."""
        height = max(self.scrollable_content_region.height, 20)
        while upto is None or len(self._shown) < upto + AHEAD * height:
            more = list(islice(self._rest, 256))
            if not more:
                break
            for line in more:
                self._lines.append(line)
                self._wrap(len(self._lines) - 1, line)

    def go(self, at: int, tell: bool = True) -> None:
        before = len(self._shown)
        self._fill(at)
        if len(self._shown) != before:
            self.fresh()
        super().go(at, tell)

    def action_last(self) -> None:
        self._fill(None)
        self.fresh()
        super().action_last()

    def seek(self, text: str, way: int = 1) -> Iterator[bool]:
        self._fill(None)
        self.fresh()
        yield from super().seek(text, way)

    def whole(self) -> str:
        """All lines as text."""
        self._fill(None)
        self.fresh()
        return "\n".join(unmarked(line.text).rstrip() for line in self._lines)
