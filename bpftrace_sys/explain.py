"""Why a call was refused, with evidence (being written)."""

from __future__ import annotations

from typing import Any

from decoders.call import Call


class Retries:
    """Attempts."""

    def watch(self, call: Call) -> None:
        """Nothing yet."""


def explain(call: Call, model: Any, facts: Any) -> list[str]:
    """Nothing yet."""
    return []


def remarks(call: Call) -> list[str]:
    """What is said below a call."""
    return []
