"""Where there is no evidence, there is no explanation."""

from __future__ import annotations

import errno
import json
import re
import sys
from collections.abc import Callable

import pytest

from bpftrace_sys.story.explain import Retries, explain
from bpftrace_sys.story.model import Model
from bpftrace_sys.trace.facts import RecordedFacts
from tests.support.refusals import WORKLOAD, noted, refusal, refused, why
from tests.support.running import Ran

pytestmark = pytest.mark.usefixtures("needs_bpf")


@pytest.mark.parametrize("cmd", range(40))
def test_silence_without_evidence(cmd: int) -> None:
    """Facts that nobody could gather lead to no explanation, and to no error."""
    facts = RecordedFacts({}, 1)
    for number in (*errno.errorcode, 524, 9999):
        call = noted(refusal(number, bytes(64), cmd), facts)
        for line in explain(call, Model(facts), facts):
            # What the call's own bytes prove may be said.
            assert not re.search(r"CAP_|sysctl|kernel\.|CONFIG_", line), line


def test_capabilities_that_are_there_explain_nothing() -> None:
    facts = RecordedFacts({}, 1)
    facts.learn("why sysctl kernel/unprivileged_bpf_disabled", 1, "2")
    attr = (1).to_bytes(4, "little").ljust(64, b"\0")
    every = {"eff": "000001ffffffffff"}
    assert explain(noted(refusal(errno.EPERM, attr, cred=every), facts), Model(facts), facts) == []
    none = {"eff": "0000000000000000"}
    lines = explain(noted(refusal(errno.EPERM, attr, cred=none), facts), Model(facts), facts)
    assert "CAP_BPF" in lines[0]


def test_before_there_was_a_cap_bpf() -> None:
    facts = RecordedFacts({}, 1)
    facts.learn("why sysctl kernel/cap_last_cap", 0, "37")
    attr = (2).to_bytes(4, "little").ljust(64, b"\0")
    call = noted(refusal(errno.EPERM, attr, cred={"eff": "0"}), facts)
    lines = explain(call, Model(facts), facts)
    assert lines == ["a kprobe program needs CAP_SYS_ADMIN, which the caller lacks"]


@pytest.mark.parametrize("answer", ["", "-", "x", "9" * 5000, "²", "0-99999999999", "\0", "-9"])
def test_damaged_facts(answer: str) -> None:
    """The same of its facts: every question is answered with rubbish."""

    class Rubbish(RecordedFacts):
        def fact(self, kind: str, key: int) -> str | None:
            return answer

    facts = Rubbish({}, 1)
    for cmd in range(40):
        for number in (1, 2, 7, 9, 13, 14, 16, 17, 19, 22, 28, 95, 524):
            call = noted(refusal(number, bytes(range(1, 200)), cmd, cred={"eff": "0"}), facts)
            explain(call, Model(facts), facts)
    for number in (1, 2, 3, 7, 13, 19, 22):
        raw = refusal(number, bytes(range(1, 200)), cred={"eff": "0"})
        raw.nr, raw.args = 298, (0x1000, 5, 9999, 0, 0, 0)
        call = noted(raw, facts)
        explain(call, Model(facts), facts)


@pytest.mark.parametrize("cred", [None, "x", {}, {"eff": 5}, {"eff": "zz"}, {"userns": "?"}])
def test_damaged_credentials(cred: object) -> None:
    """A trace file says what it likes."""
    facts = RecordedFacts({}, 1)
    attr = (2).to_bytes(4, "little").ljust(64, b"\0")
    explain(noted(refusal(errno.EPERM, attr, cred=cred), facts), Model(facts), facts)


def test_a_flag_that_this_kernel_has_not(traced: Callable[..., Ran]) -> None:
    ran = traced([], sys.executable, WORKLOAD, "newer")
    results = json.loads(ran.stdout)
    if results == [["flag", 0]]:
        pytest.skip("this kernel knows all the flags of maps that we know")
    assert why(refused(ran)[0]) == "this kernel does not know BPF_F_RB_OVERWRITE in map_flags"


def test_a_field_that_an_older_kernel_has_not() -> None:
    """By facts as Linux 5.8 would give them: 120 bytes, and map_extra not among the members."""
    facts = RecordedFacts({}, 1)
    facts.learn("why size bpf_attr", 0, "120")
    facts.learn("why members bpf_attr", 0, "map_type key_size value_size max_entries map_flags")
    attr = bytearray(120)
    attr[:16] = b"".join(number.to_bytes(4, "little") for number in (1, 4, 8, 2))
    assert explain(noted(refusal(errno.EINVAL, bytes(attr), 0), facts), Model(facts), facts) == []
    attr[64] = 1
    lines = explain(noted(refusal(errno.EINVAL, bytes(attr), 0), facts), Model(facts), facts)
    assert lines == ["this kernel has no field map_extra for BPF_MAP_CREATE, which is not zero"]


def test_a_success_between_ends_the_story() -> None:
    facts = RecordedFacts({}, 1)
    retries = Retries()
    attr = (b"\2\0\0\0\4\0\0\0\4\0\0\0\1\0\0\0").ljust(64, b"\0")
    notes = []
    for ret in (-22, 3, -22, -22):
        raw = refusal(22, attr, 0)
        raw.ret, raw.failed = ret, ret < 0
        call = noted(raw, facts)
        retries.watch(call)
        notes.append(call.notes.retry and call.notes.retry.attempt)
    assert notes == [None, 2, None, 2]
