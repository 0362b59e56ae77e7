"""A tracee: calls that kernels at hand refuse, made as if they were not.

Where a call should have returned an fd, another file has that number from there on.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import Kit, asm, call, returning, u32s, u64s

FENTRY_MULTI = 59
kit = Kit()
ids = asm.vmlinux_ids("func")
wanted = [ids["vfs_read"], ids["vfs_write"]]
array = kit.map("ARRAY", 4, 4, 1, "array")
prog = kit.prog("SOCKET_FILTER", returning(0), "filter")
with kit.may_be_refused("PROG_ASSOC_STRUCT_OPS"):
    call("PROG_ASSOC_STRUCT_OPS", map_fd=array, prog_fd=prog)
with kit.may_be_refused("PROG_LOAD"):
    call(
        "PROG_LOAD", prog_type=26, insn_cnt=2, insns=returning(0), license=b"GPL\0",
        prog_name=b"many", expected_attach_type=FENTRY_MULTI,
    )  # fmt: skip
kit.say(prog=os.open(os.devnull, os.O_RDONLY))
with kit.may_be_refused("LINK_CREATE"):
    call(
        "LINK_CREATE", "tracing_multi", prog_fd=kit.facts["prog"], attach_type=FENTRY_MULTI,
        ids=u32s(*wanted), cookies=u64s(7, 8), cnt=2,
    )  # fmt: skip
kit.say(link=os.open(os.devnull, os.O_RDONLY), ids=wanted)
with kit.may_be_refused("LINK_DETACH"):
    call("LINK_DETACH", link_fd=kit.facts["link"])
print(json.dumps({**kit.facts, "refused": kit.refused}))
