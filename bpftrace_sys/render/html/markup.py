"""Elements of a page.  A string in one is text, whatever it holds.

Markup is a type of its own, made only here: by :func:`element`, which escapes
every child and every attribute that is a str, and by :func:`data`, :func:`script`
and :func:`style` for what stands in a page as it is.  There is no way to make
Markup of a string that comes from a trace, and mypy knows the difference.
"""

from __future__ import annotations

import base64
import json
import re
from html import escape
from typing import Any, Final

from bpftrace_sys.common.escape import printable
from decoders.digests import sha256_of

UNSEEN: Final = re.compile(
    "[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
"""Characters that steer how others are shown and do not show themselves; below blank JSON
has escapes of its own."""
VOID: Final = frozenset({"br", "input", "link", "meta"})
"""Elements that have no end tag; of SVG none is."""


class Markup:
    """Escaped already."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


Child = Markup | str | None


def escaped(text: str) -> str:
    """Text of the trace for a page: no markup, no control or bidi characters."""
    return escape(printable(text))


def element(tag: str, attributes: dict[str, str | int | float | None], *children: Child) -> Markup:
    """An element.  ``tag`` and the names of attributes are ours; all else is escaped.

    An attribute that is None is left out.  There are no handlers and no styles among
    attributes: the page's policy would refuse them.
    """
    parts = [f"<{tag}"]
    for name, value in attributes.items():
        if value is not None:
            shown = escaped(value) if isinstance(value, str) else f"{value:g}"
            parts.append(f' {name}="{shown}"')
    parts.append(">")
    if tag not in VOID:
        for child in children:
            if isinstance(child, str):
                parts.append(_text(child))
            elif child is not None:
                parts.append(child.text)
        parts.append(f"</{tag}>")
    return Markup("".join(parts))


def joined(*children: Child) -> Markup:
    """Children after each other, without an element around them."""
    return Markup("".join(
        _text(child) if isinstance(child, str) else child.text
        for child in children
        if child is not None
    ))


def _text(text: str) -> str:
    # Lines stay lines: these are ours, or a text of several.
    return "\n".join(map(escaped, text.split("\n"))) if "\n" in text else escaped(text)


def data(name: str, value: Any) -> Markup:
    """A block of JSON that the script reads; to the browser it is neither script nor markup.

    Strings are text that ``printable`` has seen; should one have come by another way, what
    steers the display is shown by its number.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_text_of_bytes)
    # What could end the block, or begin a comment in it, stands as JSON's own escape.
    text = UNSEEN.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(f'<script type="application/json" id="{escape(name)}">{text}</script>')


def _text_of_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    raise TypeError(type(value).__name__)


def script(source: str) -> Markup:
    """Our own script."""
    assert "</script" not in source.lower()
    assert "<!--" not in source
    return Markup(f"<script>{source}</script>")


def style(source: str) -> Markup:
    """Our own style sheet."""
    assert "</style" not in source.lower()
    return Markup(f"<style>{source}</style>")


def digest(source: str) -> str:
    """What a Content-Security-Policy calls an inline script or style sheet."""
    return "sha256-" + base64.b64encode(sha256_of(source.encode())).decode()
