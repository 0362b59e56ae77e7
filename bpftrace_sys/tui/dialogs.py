"""What asks or tells in the middle of the screen: the keys, a choice, a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from bpftrace_sys.tui.painted import Palette
from bpftrace_sys.tui.panes import ListPane


class Choice(ModalScreen[int | None]):
    """Lines of which one is chosen; its number, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "close", show=False),
    ]
    DEFAULT_CSS = """
    Choice { align: center middle; background: $background 60%; }
    Choice > Vertical { width: 96%; max-width: 96; height: auto; max-height: 90%; }
    Choice Static { background: $panel; padding: 0 1; width: 100%; }
    Choice ListPane { height: auto; max-height: 100%; }
    """

    def __init__(self, palette: Palette, title: str, lines: Sequence[str]) -> None:
        super().__init__()
        self._title = title
        self._lines = lines
        self._palette = palette

    def compose(self) -> ComposeResult:
        """A title and the lines."""
        pane = ListPane(self._palette, "choice", self._lines)
        pane.styles.height = len(self._lines) + 2
        with Vertical():
            yield Static(Text(self._title), markup=False)
            yield pane

    def on_pane_chosen(self, message: ListPane.Chosen) -> None:
        """That one."""
        message.stop()
        self.dismiss(message.pane.cursor)

    def on_pane_moved(self, message: ListPane.Moved) -> None:
        """Nothing else is shown for it."""
        message.stop()

    def action_leave(self) -> None:
        """None of them."""
        self.dismiss(None)


class Question(ModalScreen[str | None]):
    """A question that a key answers: the key, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "back", show=False)]
    DEFAULT_CSS = """
    Question { align: center middle; background: $background 60%; }
    Question > Static {
        width: auto; max-width: 90%; height: auto; padding: 1 2;
        border: round $accent; background: $panel;
    }
    """

    def __init__(self, text: str, keys: str) -> None:
        super().__init__()
        self._text = text
        self._keys = keys

    def compose(self) -> ComposeResult:
        """The question."""
        yield Static(Text(self._text), markup=False)

    def on_key(self, event: events.Key) -> None:
        """One of the keys answers."""
        if event.key in self._keys:
            event.stop()
            self.dismiss(event.key)

    def action_leave(self) -> None:
        """No answer."""
        self.dismiss(None)
