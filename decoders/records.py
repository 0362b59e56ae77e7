"""typing.NamedTuple and dataclasses.dataclass for a program that lives for 40 ms.

Both of Python's compile each class's methods as the class is made, and import `typing`, `inspect`
and more for it: a fifth of a millisecond for a tuple, one for a dataclass, and there are eighty on
the way to the first call. These do the same, but compile a method when it is first called. Type
checkers see Python's own: records.pyi. Of dataclass there is what we use of it.
"""

from __future__ import annotations

from _collections import _tuplegetter  # CPython's own, of which collections.namedtuple is made

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any


def _late(
    owner: type,
    name: str,
    source: Callable[[], str],
    names: Mapping[str, Any],
    defaults: tuple[Any, ...] = (),
) -> Any:
    """A function that is compiled when it is first called, and then takes its own place.

    ``source``: its text; ``names``: what is global in it; ``defaults``: of its last parameters.
    """

    def first(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        found: dict[str, Any] = {}
        exec(source(), {**names, "__name__": owner.__module__}, found)
        made = found[name]
        made.__defaults__ = defaults
        made.__qualname__ = f"{owner.__qualname__}.{name}"
        setattr(owner, name, staticmethod(made) if name == "__new__" else made)
        return made(self, *args, **kwargs)

    return first


# ---------------------------------------------------------------- tuples


class _Tuple(tuple[object, ...]):
    """What all named tuples have in common; the methods are collections.namedtuple's."""

    __slots__ = ()
    _fields: tuple[str, ...] = ()
    _field_defaults: Mapping[str, Any] = {}

    @classmethod
    def _make(cls, values: Iterable[Any]) -> Any:
        made = tuple.__new__(cls, values)
        if len(made) != len(cls._fields):
            raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
        return made

    def _replace(self, /, **changes: Any) -> Any:
        made = self._make(map(changes.pop, self._fields, self))
        if changes:
            raise ValueError(f"Got unexpected field names: {list(changes)!r}")
        return made

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self) -> str:
        pairs = zip(self._fields, self, strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)


class _Maker(type):
    """Makes of each class body with annotations a class of tuples."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        fields = tuple(body.get("__annotations__", ()))
        defaults = {field: body[field] for field in fields if field in body}
        body |= {field: _tuplegetter(index, None) for index, field in enumerate(fields)}
        body |= {
            "__slots__": (), "__match_args__": fields, "_fields": fields,
            "_field_defaults": defaults,
        }  # fmt: skip
        made = type(name, (_Tuple,), body)

        def source() -> str:
            all_ = "".join(f"{field}, " for field in fields)
            return f"def __new__(_cls, {all_}): return _new(_cls, ({all_}))"

        values = tuple(defaults.values())
        made.__new__ = staticmethod(
            _late(made, "__new__", source, {"_new": tuple.__new__}, values)
        )
        return made


NamedTuple: Any = type.__new__(_Maker, "NamedTuple", (), {})


# ---------------------------------------------------------------- classes


class _Missing:
    """No default."""


class _Field:
    """A field: its default, or what makes one; whether it is compared and shown."""

    __slots__ = ("compare", "default", "factory", "name", "repr")

    def __init__(self, default: Any, factory: Any, repr: bool, compare: bool) -> None:
        self.name = ""
        self.default = default
        self.factory = factory
        self.repr = repr
        self.compare = compare


def field(
    *,
    default: Any = _Missing,
    default_factory: Any = _Missing,
    repr: bool = True,
    compare: bool = True,
) -> Any:
    """As dataclasses.field."""
    return _Field(default, default_factory, repr, compare)


def dataclass(
    cls: type | None = None, /, *, eq: bool = True, frozen: bool = False, slots: bool = False
) -> Any:
    """As dataclasses.dataclass, without an order, and without looking for ClassVar and InitVar."""
    if cls is None:
        return lambda cls: _made(cls, eq, frozen, slots)
    return _made(cls, eq, frozen, slots)


def _made(cls: Any, eq: bool, frozen: bool, slots: bool) -> Any:
    inherited: dict[str, _Field] = {}
    for base in reversed(cls.__mro__[1:]):
        inherited |= getattr(base, "__record__", {})
    own = {}
    for name in cls.__annotations__:
        default = cls.__dict__.get(name, _Missing)
        found = own[name] = (
            default if isinstance(default, _Field) else _Field(default, _Missing, True, True)
        )
        found.name = name
        if found.default is not _Missing and not slots:
            setattr(cls, name, found.default)
        elif default is not _Missing:
            delattr(cls, name)
    if slots:
        body = {
            name: value
            for name, value in cls.__dict__.items()
            if name not in ("__dict__", "__weakref__")
        }
        body["__slots__"] = tuple(name for name in own if name not in inherited)
        qualname = cls.__qualname__
        cls = type(cls)(cls.__name__, cls.__bases__, body)
        cls.__qualname__ = qualname
    fields = inherited | own
    cls.__record__ = fields
    cls.__match_args__ = tuple(fields)
    # As Python's own: once one has a default, all that follow have.
    defaults = [
        _Missing if one.factory is not _Missing else one.default
        for one in fields.values()
        if one.factory is not _Missing or one.default is not _Missing
    ]
    names = {f"_make_{name}": one.factory for name, one in fields.items()}
    names |= {"_missing": _Missing, "_set": object.__setattr__}
    source = lambda: _init(cls, fields, frozen)  # noqa: E731
    cls.__init__ = _late(cls, "__init__", source, names, tuple(defaults))
    if "__repr__" not in cls.__dict__:
        cls.__repr__ = _repr
    if eq:
        compared = [name for name, one in fields.items() if one.compare]
        cls.__eq__ = _late(cls, "__eq__", lambda: _eq(compared), {})
        cls.__hash__ = _late(cls, "__hash__", lambda: _hash(compared), {}) if frozen else None
    if frozen:
        cls.__setattr__ = _refuse
        cls.__delattr__ = _keep
    return cls


def _init(cls: Any, fields: Mapping[str, _Field], frozen: bool) -> str:
    lines = []
    for name, one in fields.items():
        made = one.factory is not _Missing
        value = f"_make_{name}() if {name} is _missing else {name}" if made else name
        line = f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}"
        lines.append(f"    {line}")
    if hasattr(cls, "__post_init__"):
        lines.append("    self.__post_init__()")
    return "\n".join([f"def __init__({', '.join(['self', *fields])}):", *lines, "    return None"])


def _eq(names: list[str]) -> str:
    ours, theirs = ("(" + "".join(f"{who}.{name}, " for name in names) + ")"
                    for who in ("self", "other"))  # fmt: skip
    return (
        "def __eq__(self, other):\n"
        "    if other.__class__ is not self.__class__:\n"
        "        return NotImplemented\n"
        f"    return {ours} == {theirs}"
    )


def _hash(names: list[str]) -> str:
    return f"def __hash__(self):\n    return hash(({''.join(f'self.{name}, ' for name in names)}))"


def _repr(self: Any) -> str:
    shown = (name for name, one in self.__record__.items() if one.repr)
    pairs = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({pairs})"


def _refuse(self: Any, name: str, value: object) -> None:
    raise AttributeError(f"cannot assign to field {name!r}")


def _keep(self: Any, name: str) -> None:
    raise AttributeError(f"cannot delete field {name!r}")


def replace(record: Any, /, **changes: Any) -> Any:
    """As dataclasses.replace."""
    kept = {name: getattr(record, name) for name in record.__record__}
    return type(record)(**kept | changes)


def asdict(record: Any) -> dict[str, Any]:
    """As dataclasses.asdict; what is no record, list or dict is not copied."""
    return {name: _plain(getattr(record, name)) for name in record.__record__}


def _plain(value: Any) -> Any:
    if hasattr(value, "__record__"):
        return asdict(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value
