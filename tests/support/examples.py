"""How many examples a property is tried with, and which: the same in every run, or fresh ones."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("BPFSTRACE_EXAMPLES", "1"))
"""What numbers of examples are multiplied with; tools/fuzz.py sets it."""


def register_profiles() -> None:
    """``same``, the default: no seed, no time limit, nothing that a slow machine decides.

    ``fresh``: another seed each time; tools/fuzz.py takes it.
    """
    usual = settings(
        deadline=None,
        max_examples=100 * TIMES,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
    settings.register_profile("same", usual, derandomize=True)
    settings.register_profile("fresh", usual, database=None)
    settings.load_profile("same")


def examples(count: int, **more: Any) -> settings:
    """Settings for a property that wants so many examples: ``@examples(300)``."""
    return settings(max_examples=count * TIMES, **more)
