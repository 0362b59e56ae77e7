"""What programs import of bpfstrace: ``import bpftrace_sys`` has all names of this page.

They stay as they are from release to release; names of other modules do not.

A saved trace, and what its programs are:

```python
import bpftrace_sys

trace = bpftrace_sys.open_trace("trace.jsonl.gz")
hello = trace.programs["hello_world"]
print(hello.type, hello.tag, hello.helpers, hello.attached_to)
for insn in hello.instructions:
    print(insn)
```

Its calls, one by one; the file is read as they are asked for:

```python
for call in trace.calls("prog_load", failed=True):
    print(call.seq, call.args["attr"]["prog_name"], call.errno, call.explanation)
```

What the kernel refused in the end, and at which line of source:

```python
for refusal in trace.refusals:
    print(refusal.text, refusal.place and refusal.place.where)
```

A command traced now (it needs what bpfstrace needs: ptrace(2), and mostly root):

```python
run = bpftrace_sys.run(["python3", "-m", "bpftrace_sys.hello"], timeout=60)
print(run.returncode, run.stdout, run.attachments)
```

Two traces compared, and a trace held against a lock file:

```python
difference = bpftrace_sys.diff(trace, run)
if difference:
    print(difference)
for outside in bpftrace_sys.check(trace, "bpf.lock.toml").outside:
    print(outside.text, outside.where)
```
"""

from bpftrace_sys.api.comparing import Diff, check, diff
from bpftrace_sys.api.objects import Attachment, Instruction, Link, Map, Named, Program
from bpftrace_sys.api.running import Run, RunError, RunTimeoutError, run
from bpftrace_sys.api.trace import Call, Trace, open_trace
from bpftrace_sys.compare.policy.lock_file import LockError
from bpftrace_sys.compare.policy.verdicts import Outside, Verdict
from bpftrace_sys.story.places import Place
from bpftrace_sys.story.refusals import Refusal
from bpftrace_sys.trace.items import TraceError

__all__ = [
    "Attachment",
    "Call",
    "Diff",
    "Instruction",
    "Link",
    "LockError",
    "Map",
    "Named",
    "Outside",
    "Place",
    "Program",
    "Refusal",
    "Run",
    "RunError",
    "RunTimeoutError",
    "Trace",
    "TraceError",
    "Verdict",
    "check",
    "diff",
    "open_trace",
    "run",
]
