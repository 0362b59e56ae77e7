"""typing.NamedTuple without typing, for modules that are imported before the first stop.

Importing typing takes as long as some traces; type checkers see the real one:

    if TYPE_CHECKING:
        from typing import NamedTuple
    else:
        from decoders.records import NamedTuple
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Maker(type):
    """Makes of each class body with annotations a collections.namedtuple."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        fields = tuple(body.get("__annotations__", ()))
        defaults = [body.pop(field) for field in fields if field in body]
        # mypy expects a literal, which only the classes themselves have.
        make: Any = namedtuple
        made = make(name, fields, defaults=defaults, module=body["__module__"])
        for key, value in body.items():
            if key not in ("__annotations__", "__module__", "__qualname__"):
                setattr(made, key, value)
        return made


NamedTuple: Any = type.__new__(_Maker, "NamedTuple", (), {})
