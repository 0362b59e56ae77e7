"""One map under many numbers: dup, dup2 over a closed fd, fork, and exec of a program."""

import json
import os
import subprocess
import sys
from pathlib import Path

from _common import Kit, call, count, map_facts, run, start_child, u32s, u64s

# What is executed: it knows the fd's number and the key, and nothing else.
EXECUTED = """
import json, sys
sys.path.insert(0, sys.argv[1])
from _common import call, map_facts, u32s, u64s
fd = int(sys.argv[2])
call("MAP_UPDATE_ELEM", map_fd=fd, key=u32s(2), value=u64s(3))
print(json.dumps(map_facts(fd)))
"""


def work(kit: Kit) -> None:
    first = kit.map("ARRAY", 4, 8, 4, "one_of_many")
    other = kit.map("HASH", 4, 8, 4, "other")
    copy = os.dup(first)
    os.close(other)  # its number now names the array
    reused = os.dup2(first, other, inheritable=False)
    os.close(first)
    kit.say(dup=map_facts(copy), reused=map_facts(reused), closed=first)

    def child() -> dict[str, int]:
        call("MAP_UPDATE_ELEM", map_fd=copy, key=u32s(0), value=u64s(1))
        return map_facts(copy)

    kit.say(forked=start_child(child)())
    executed = subprocess.Popen(
        [sys.executable, "-c", EXECUTED, str(Path(__file__).parent), str(copy)],
        pass_fds=[copy], stdout=subprocess.PIPE,
    )  # fmt: skip
    kit.say(executed={"pid": executed.pid, **json.loads(executed.communicate()[0])})
    kit.say(value=count(reused))


run(work)
