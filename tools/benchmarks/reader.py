# SPDX-License-Identifier: GPL-2.0-only
"""What reading the eBPF engine's ring costs, in CPU time of ours; for tools/bench.py.

reader.py WORK read    100,000 map updates that are in the ring already
reader.py WORK idle    100 seconds in which nothing comes
"""

from __future__ import annotations

import subprocess
import sys
import time

from bpftrace_sys.record.ebpf.engine import Told, Wanted, Watch

SECONDS = 100.0


def main(work: str, what: str) -> None:
    """Prints the time."""
    engine = Watch(Wanted(everybody=False))
    engine.open()
    engine.tell(Told(lambda item: None))
    try:
        if what == "read":
            subprocess.run([work, "updates", "100000"], check=True, stdout=subprocess.DEVNULL)
        began = time.process_time()
        if what == "read":
            while engine.read():
                pass
            if engine.lost:
                sys.exit("the ring was too small")
        else:
            deadline = time.monotonic() + SECONDS
            while (left := deadline - time.monotonic()) > 0:
                while engine.read():
                    pass
                engine.wait(left)
        print(f"{time.process_time() - began:.9f} s")
    finally:
        engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
