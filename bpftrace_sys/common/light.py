"""Of Python's library what the way to the first stop needs, without what that imports for more.

`signal` makes enums of its numbers, `contextlib` and `functools` need `collections`: together with
what they import it is as long as half of an empty Python takes to start. Here are the C modules
that stand behind them. Type checkers see Python's own: light.pyi.
"""

from __future__ import annotations

import _signal as signal
from _collections import OrderedDict, deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["OrderedDict", "deque", "signal", "suppress"]


class suppress:  # noqa: N801 - its name elsewhere
    """As contextlib.suppress."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> bool:
        return kind is not None and issubclass(kind, self._kinds)
