"""Pages and Perfetto's files of traces whose memory says anything: they are made, and are inert."""

from __future__ import annotations

import io
import random

import pytest

from bpftrace_sys.export.perfetto import Perfetto
from bpftrace_sys.render.html.gather import Gather
from bpftrace_sys.render.html.page import page
from bpftrace_sys.story.pipeline import Pipeline
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.items import End, Fact, Flush
from decoders.raw import RawCall
from tests.support.pages import Parsed, assert_inert
from tests.support.rewriting import items, recording

RESULTS = ((None, False), (-22, True), (7, False), (-524, True))
BYTES = b"\0\1\xff<\"'&>\xe2\x80\xae"


def damaged(raw: RawCall, dice: random.Random) -> RawCall:
    """A call with bytes changed, pieces cut or missing, fds unknown, another result."""
    chunks = []
    for chunk in raw.chunks:
        data = bytearray(chunk.data)
        for _ in range(dice.choice((0, 0, 1, 3, 20)) if data else 0):
            data[dice.randrange(len(data))] = dice.choice((*BYTES, dice.randrange(256)))
        if dice.random() < 0.05:
            data = data[: dice.randrange(len(data) + 1)]
        chunks.append(chunk._replace(data=bytes(data)))
    if chunks and dice.random() < 0.05:
        chunks.pop()
    fds = [fact for fact in raw.fds if dice.random() < 0.95]
    ret, failed = raw.ret, raw.failed
    if dice.random() < 0.05:
        ret, failed = dice.choice(RESULTS)
    duration = None if ret is None else raw.duration
    return raw.replace(chunks=chunks, fds=fds, ret=ret, failed=failed, duration=duration)


@pytest.mark.parametrize(
    "name", ["verifier-reject", "libbpf-opensnoop", "bcc-kprobe-hello", "cilium-features", "netkit"]
)
def test_damaged_memory(name: str) -> None:
    dice = random.Random(name)
    header, found = items(recording(name))
    for _ in range(5):
        facts = RecordedFacts(
            {number: pmu for pmu, number in header.pmu_types.items()}, header.cpus
        )
        pipeline = Pipeline(facts)
        gather = Gather(pipeline.model)
        pipeline.renderers = [gather, Perfetto(io.BytesIO(), pipeline.model)]
        pipeline.header(header)
        for item in found:
            if isinstance(item, RawCall):
                pipeline.take(damaged(item, dice))
            elif isinstance(item, Fact):
                facts.learn(item.kind, item.key, item.name)
            elif isinstance(item, Flush):
                pipeline.flush()
            elif isinstance(item, End):
                pipeline.end(item.ending)
            else:
                pipeline.take(item)
        text = "".join(page(gather.report, gather.marks.names))
        assert_inert(text, Parsed(text))
        text.encode()
