"""decoders/records.py, digests.py and common/light.py do as the modules that they stand for."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bpftrace_sys
import decoders
from bpftrace_sys.common import light
from decoders import digests, records

ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}), ((1,), {}), ((1, 2), {}), ((1, 2, 3), {}), ((1, 2, 3, 4), {}), ((1, 2, 3, 4, 5), {}),
    ((), {"a": 1, "b": 2}), ((1,), {"b": 2}), ((1, 2), {"c": 5}), ((1, 2), {"d": 5, "c": [7]}),
    ((1, 2), {"a": 1}), ((1, 2), {"e": 1}), ((), {"b": 2}),
]  # fmt: skip
"""Too few, too many, by name, twice, and of names that there are not."""


def told(do: Callable[[], Any]) -> Any:
    """What comes of it: a value, or how it failed."""
    try:
        return do()
    except (AttributeError, TypeError, ValueError) as error:
        # Whose method it was, is said in full or in short.
        return type(error).__mro__[-4:], str(error).partition("() ")[2] or str(error)


# ---------------------------------------------------------------- tuples


def tuples(base: Any) -> list[Any]:
    class Plain(base):
        """Some words."""

        a: int
        b: str

        @property
        def both(self) -> str:
            return f"{self.a}{self.b}"

        def __str__(self) -> str:
            return "Plain itself"

    class Defaults(base):
        a: int
        b: int
        c: list[int] = [3]  # noqa: RUF012
        d: int | None = None

    class Alone(base):
        a: int

    class Nothing(base):
        pass

    return [Plain, Defaults, Alone, Nothing]


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize(("args", "named"), ARGUMENTS)
def test_tuples(at: int, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    theirs, ours = tuples(typing.NamedTuple)[at], tuples(records.NamedTuple)[at]
    expected, made = (told(lambda cls=cls: cls(*args, **named)) for cls in (theirs, ours))
    assert made == expected
    assert ours.__name__ == theirs.__name__
    assert ours.__qualname__ == theirs.__qualname__
    assert (ours.__module__, ours._fields) == (theirs.__module__, theirs._fields)
    assert ours._field_defaults == theirs._field_defaults
    assert ours.__match_args__ == theirs.__match_args__
    if not isinstance(made, ours):
        return
    assert told(lambda: ours(*args, **named)) == expected, "the second time, too"
    assert inspect.signature(ours).parameters.keys() == inspect.signature(theirs).parameters.keys()
    for look in (
        repr, str, hash, len, list, dict,
        lambda one: one._asdict(), lambda one: [getattr(one, name) for name in one._fields],
        lambda one: getattr(one, "both", None), lambda one: one._replace(a=7),
        lambda one: one._replace(a=7, z=7), lambda one: one._make(range(len(one))),
        lambda one: one._make(range(len(one) + 1)), lambda one: one.z,
        lambda one: type(one)(*one), lambda one: one.__getnewargs__(), lambda one: one._tell(),
    ):  # fmt: skip
        assert told(lambda look=look: look(made)) == told(lambda look=look: look(expected))
    with pytest.raises(AttributeError):
        made.a = 1
    assert not hasattr(made, "__dict__")


def test_a_tuple_of_a_tuple() -> None:
    """What extends a record is made by it, and is one; the record itself stays as it is."""

    class Wider(tuples(records.NamedTuple)[0]):  # type: ignore[misc]
        __slots__ = ()

        def __new__(cls, a: int) -> Any:
            return super().__new__(cls, a, "b")

    made = Wider(1)
    assert (type(made), made.both, made._replace(a=2)) == (Wider, "1b", (2, "b"))
    assert type(made._replace(a=2)) is Wider


# ---------------------------------------------------------------- classes


def classes(of: Any) -> list[Any]:
    @of.dataclass
    class Plain:
        """Some words."""

        a: int
        b: str

        def both(self) -> str:
            return f"{self.a}{self.b}"

    @of.dataclass(slots=True)
    class Slots:
        a: int
        b: int
        c: list[int] = of.field(default_factory=lambda: [3])
        d: int | None = None

        def itself(self) -> Any:
            return self.__class__

    @of.dataclass(frozen=True, slots=True)
    class Frozen:
        a: int
        b: int
        c: int = of.field(default=5, compare=False)
        d: int | None = of.field(default=None, repr=False)

    @of.dataclass(frozen=True)
    class FrozenAndOpen:
        a: int
        b: int = 2
        c: tuple[int, ...] = ()

    @of.dataclass(slots=True, eq=False)
    class Same:
        a: int
        b: int = 2

        def __repr__(self) -> str:
            return "itself"

    @of.dataclass
    class After:
        a: int
        b: int
        c: int = 0

        def __post_init__(self) -> None:
            self.c += self.a

    @of.dataclass
    class Base:
        a: int
        b: int = 1

    @of.dataclass
    class Derived(Base):
        c: int = 2
        b: int = 7

    @of.dataclass(slots=True)
    class Nothing:
        pass

    return [Plain, Slots, Frozen, FrozenAndOpen, Same, After, Derived, Nothing]


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize(("args", "named"), ARGUMENTS)
def test_classes(at: int, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    theirs, ours = classes(dataclasses)[at], classes(records)[at]
    expected, made = (told(lambda cls=cls: cls(*args, **named)) for cls in (theirs, ours))
    assert ours.__name__ == theirs.__name__
    assert ours.__qualname__ == theirs.__qualname__
    assert ours.__module__ == theirs.__module__
    assert ours.__match_args__ == theirs.__match_args__
    if not isinstance(expected, theirs):
        assert made == expected
        return
    assert inspect.signature(ours).parameters.keys() == inspect.signature(theirs).parameters.keys()
    assert hasattr(made, "__dict__") == hasattr(expected, "__dict__")
    for look in looks(args, named):
        assert told(lambda look=look: look(made)) == told(lambda look=look: look(expected))


def looks(args: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Callable[[Any], Any]]:
    """What can be asked of an object; none of the answers names the object's own class."""

    def again(one: Any) -> Any:
        return type(one)(*args, **named)

    def change(one: Any) -> Any:
        one.a = 8
        return one.a, one == again(one)

    def remove(one: Any) -> Any:
        del one.a
        return hasattr(one, "a")

    def replaced(one: Any) -> Any:
        replace = records.replace if hasattr(one, "__record__") else dataclasses.replace
        return repr(replace(one)), repr(replace(one, a=9)), repr(replace(one, z=9))

    def as_dict(one: Any) -> Any:
        return (records.asdict if hasattr(one, "__record__") else dataclasses.asdict)(one)

    yield repr
    yield lambda one: one == one
    yield lambda one: one == again(one)
    yield lambda one: one != again(one)
    yield lambda one: again(one).c is again(one).c
    yield lambda one: one == object()
    yield lambda one: hash(one) == hash(again(one))
    yield lambda one: hash(one) - hash(one)
    yield lambda one: [getattr(one, name) for name in one.__match_args__]
    yield lambda one: one.both()
    yield lambda one: one.itself() is type(one)
    yield replaced
    yield as_dict
    yield change
    yield remove


def test_a_dict_of_records_is_of_dicts() -> None:
    for of in (dataclasses, records):
        inner = classes(of)[0](1, "x")
        outer = classes(of)[1](inner, {"y": inner}, [inner])
        plain = {"a": 1, "b": "x"}
        assert of.asdict(outer) == {"a": plain, "b": {"y": plain}, "c": [plain], "d": None}


def test_no_record_has_what_records_know_nothing_of() -> None:
    seen = 0
    for package in (bpftrace_sys, decoders):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.rpartition(".")[2] in ("__main__", "hello", "reproducer_runtime"):
                continue
            module = importlib.import_module(found.name)
            for cls in vars(module).values():
                if isinstance(cls, type) and "__record__" in vars(cls):
                    seen += 1
                    words = [str(kind) for kind in vars(cls).get("__annotations__", {}).values()]
                    assert not [word for word in words if word.startswith(("ClassVar", "InitVar"))]
                    defaults = [one.default for one in vars(cls)["__record__"].values()]
                    assert not [one for one in defaults if isinstance(one, list | dict | set)], cls
    assert seen > 60


# ---------------------------------------------------------------- others


@pytest.mark.parametrize("size", [0, 1, 1000, digests.LARGE - 1, digests.LARGE])
def test_digests(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert digests.sha1_of(data) == hashlib.sha1(data).digest()
    assert digests.sha256_of(data) == hashlib.sha256(data).digest()
    assert digests.short_of(data) == hashlib.blake2b(data, digest_size=16).digest()


def test_suppress() -> None:
    for suppress in (contextlib.suppress, light.suppress):
        with suppress(KeyError, OSError):
            raise FileNotFoundError
        with suppress(), suppress(ValueError):
            pass
        with pytest.raises(KeyError), suppress(OSError):
            raise KeyError
