"""ENABLE_STATS: the kernel counts runs of programs while the fd is open."""

import os
import struct

from _common import Kit, call, info, returning, run

BPF_STATS_RUN_TIME = 0


def work(kit: Kit) -> None:
    stats = call("ENABLE_STATS", type=BPF_STATS_RUN_TIME).ret
    prog = kit.prog("SOCKET_FILTER", returning(0), "counted")
    call("PROG_TEST_RUN", prog_fd=prog, data_in=bytes(64), data_size_in=64, repeat=5)
    run_time, run_cnt = struct.unpack_from("<QQ", info(prog, 232), 192)
    kit.say(stats_fd=stats, run_cnt=run_cnt, timed=run_time > 0)
    os.close(stats)


run(work)
