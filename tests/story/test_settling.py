"""In what order objects are asked for at the end of a trace, and with whom there is patience."""

from __future__ import annotations

import pytest

from bpftrace_sys.story.lasting import still_attached
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Link, Map, NotedCall, Object, Prog
from bpftrace_sys.trace.facts import RecordedFacts
from tests.support.refusals import noted, refusal


class Asked(RecordedFacts):
    """Answers that only some pins are there, and that some programs stand somewhere; and notes from
    when on there is patience."""

    def __init__(self, *pins: str, standing: tuple[int, ...] = ()) -> None:
        super().__init__({}, 1)
        self.pins = pins
        self.standing = standing
        self.hasty: list[int] = []
        self.patient = False

    def have_patience(self, seconds: float) -> None:
        self.patient = True

    def fact(self, kind: str, key: int) -> str | None:
        if kind.startswith("alive_") and not self.patient:
            self.hasty.append(key)
        stands = kind == "standing" and key in self.standing
        pinned = kind.startswith("pinned ") and kind.endswith(self.pins)
        return "yes" if stands or pinned else None


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
    assert settled(Asked("none", standing=(3,)), prog, link, alone) == [3]


def test_a_device_that_is_gone_holds_nothing(call: NotedCall) -> None:
    """As a program that was attached in a network namespace, which goes a moment later."""
    gone = Prog(id=1, call=call, attached=["xdp on v0 (drv)"])
    stays = Prog(id=2, call=call, attached=["xdp on lo (skb)"])
    slot = Prog(id=3, call=call, attached=["tail call 0 of map jumps id=9"])
    assert settled(Asked("none", standing=(2,)), gone, slot, stays) == [2]
    assert not still_attached(gone, gone.attached[0], Asked("none"))
    assert still_attached(stays, stays.attached[0], Asked("none", standing=(2,)))
    assert not still_attached(slot, slot.attached[0], Asked("none"))
