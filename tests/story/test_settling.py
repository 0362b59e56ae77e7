"""In what order objects are asked for at the end of a trace, and with whom there is patience."""

from __future__ import annotations

import pytest

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Link, Map, NotedCall, Object, Prog
from bpftrace_sys.trace.facts import RecordedFacts
from tests.support.refusals import noted, refusal


class Asked(RecordedFacts):
    """Answers that only some pins are there, and notes from when on there is patience."""

    def __init__(self, *pins: str) -> None:
        super().__init__({}, 1)
        self.pins = pins
        self.hasty: list[int] = []
        self.patient = False

    def have_patience(self, seconds: float) -> None:
        self.patient = True

    def fact(self, kind: str, key: int) -> str | None:
        if kind.startswith("alive_") and not self.patient:
            self.hasty.append(key)
        return "yes" if kind.startswith("pinned ") and kind.endswith(self.pins) else None


@pytest.fixture
def call() -> NotedCall:
    return noted(refusal(22, bytes(64), 0), RecordedFacts({}, 1))


def settled(facts: Asked, *objects: Object) -> list[int]:
    """The objects that were asked for without patience."""
    model = Model(facts)
    for found in objects:
        assert found.id is not None
        model.objects[found.kind, found.id] = found
    model.settle()
    return facts.hasty


def test_a_pin_that_is_gone_is_no_reason(call: NotedCall) -> None:
    """A bpf file system that was its mount namespace's own goes with it, a moment later."""
    gone = Map(id=1, call=call, pins=["/sys/fs/bpf/gone"])
    stays = Map(id=2, call=call, pins=["/sys/fs/bpf/stays"])
    assert settled(Asked("/sys/fs/bpf/stays"), gone, stays) == [2]


def test_a_link_holds_its_program_only_as_long_as_it_is_there(call: NotedCall) -> None:
    prog = Prog(id=1, call=call, attached=["xdp on lo (skb)"])
    link = Link(id=2, call=call, prog=prog, target="xdp on lo (skb)")
    alone = Prog(id=3, call=call, attached=["cgroup_skb egress on /x"])
    assert settled(Asked("none"), prog, link, alone) == [3]
