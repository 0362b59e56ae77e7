"""The queue of what waits to be told: rounds of loops leave it together."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import TypeVar

    from decoders.loop_calls import Round, Rounds

    Other = TypeVar("Other")


def next_of(queue: deque[Other | Round]) -> Other | Rounds:
    """What is to be told next: of rounds as many as wait one after the other."""
    item = queue.popleft()
    if type(item) is not tuple:
        return item  # type: ignore[return-value]
    from decoders.loop_calls import TOGETHER, in_strands

    rounds: list[Round] = [item]
    while queue and type(queue[0]) is tuple and len(rounds) < TOGETHER:
        rounds.append(queue.popleft())  # type: ignore[arg-type]
    return in_strands(rounds)
