"""Children are told of once, whichever stop of a birth comes first (support/late_stops.py)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.engine_runs import Trace, Tracer
from tests.support.late_stops import ORDERS
from tests.support.running import TRACEES


@pytest.fixture(scope="module")
def births(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    binary = tmp_path_factory.mktemp("births") / "births"
    source = TRACEES / "births.c"
    subprocess.run([compiler, "-O1", "-w", "-o", binary, source, "-pthread"], check=True)
    return str(binary)


def told_well(done: Trace, untold: int = 0) -> None:
    """Each child is told of before all that it does, once, and ends once; but for ``untold``
    ones, whose parents had no time to tell."""
    known = {done.all("execed")[0][1]}
    ended: list[int] = []
    for event in done.events:
        if event[0] == "forked":
            assert event[1] in known
            assert event[2] not in known
            known.add(event[2])
        elif event[0] == "exited":
            ended.append(event[1])
        assert event[1] in known or untold
    assert len(ended) == len(set(ended))
    assert len(set(ended) - known) == untold
    assert known <= set(ended)


@pytest.mark.parametrize("seccomp", [True, False])
@pytest.mark.parametrize("order", ["event first", "stop first"])
def test_every_way_to_have_children(
    trace: Tracer, engine_c: str, seccomp: bool, order: str
) -> None:
    done = trace(engine_c, "ways", follow=True, seccomp=seccomp, late=order)
    assert done.returncode == 0
    told_well(done)
    ways = [event[4] for event in done.all("forked")]
    assert sorted(ways) == sorted(
        ["fork", "vfork", "vfork", "fork", "clone", "thread", "fork", "fork"]
    )
    assert len(done.markers()) == 8


@pytest.mark.parametrize("seccomp", [True, False])
@pytest.mark.parametrize("order", ["event first", "stop first"])
@pytest.mark.parametrize("whose", ["sibling", "tracer's"])
def test_children_of_other_parents(
    trace: Tracer, births: str, whose: str, seccomp: bool, order: str
) -> None:
    """CLONE_PARENT: who made it has no child, but it is whom we hear of."""
    done = trace(births, whose, follow=True, seccomp=seccomp, late=order)
    assert done.returncode == 0
    told_well(done)
    assert done.markers() == ["/marker-child"]
    maker, child, *_ = done.all("forked")[-1][1:]
    assert child in {event[1] for event in done.all("entry")}
    assert (maker == done.all("execed")[0][1]) is (whose != "sibling")


@pytest.mark.parametrize("order", ["stop and end first", "end first"])
def test_children_killed_at_birth(trace: Tracer, births: str, order: str) -> None:
    done = trace(births, "fork", follow=True, late=order)
    assert done.returncode == 9
    told_well(done)
    assert len(done.all("forked")) == 1
    assert [event[2:] for event in done.all("exited")] == [[None, 9], [9, None]]
    assert not done.markers()


@pytest.mark.parametrize("order", ["no event", "no event, stop last"])
def test_parents_killed_at_a_birth(trace: Tracer, births: str, order: str) -> None:
    """The child is let go on, and traced."""
    done = trace(births, "orphan", follow=True, late=order)
    assert done.returncode == 9
    told_well(done, untold=1)
    assert done.markers() == ["/marker-child"]


@pytest.mark.parametrize("how", ["waits", "computes"])
def test_parents_replaced_at_a_birth(trace: Tracer, births: str, how: str) -> None:
    """The process lives on, as another program: the child is known to be its child."""
    done = trace(births, "executes", how, follow=True, late="event lost")
    assert done.returncode == 0
    told_well(done)
    assert done.markers() == ["/marker-child"]
    assert [event[4] for event in done.all("forked")] == ["fork", "thread", "fork"]


def test_adopted_by_mistake(trace: Tracer, births: str) -> None:
    """Where we were wrong to give up, the event that comes after all makes no second child."""
    done = trace(births, "fork", follow=True, late="stop first", blind=True)
    assert done.returncode == 7
    told_well(done)
    assert len(done.all("forked")) == 1
    assert done.markers() == ["/marker-child"]


def test_orders_are_all_tried() -> None:
    text = Path(__file__).read_text()
    assert [order for order in ORDERS if f'"{order}"' not in text] == []
