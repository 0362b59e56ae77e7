"""The generated tables as tests look at them."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from decoders.uapi import const
from tests.support.running import ROOT

FACTS = ROOT / "tools/uapi_facts.json"


def constants() -> dict[str, int]:
    return {name: value for name, value in vars(const).items() if name.isupper()}


def tables(module: ModuleType) -> Iterator[tuple[str, dict[int, str]]]:
    for name, value in vars(module).items():
        if isinstance(value, dict) and name.islower() and not name.startswith("_"):
            yield name, value
