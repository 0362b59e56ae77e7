from bpftrace_sys.api import Attachment as Attachment
from bpftrace_sys.api import Call as Call
from bpftrace_sys.api import Diff as Diff
from bpftrace_sys.api import Instruction as Instruction
from bpftrace_sys.api import Link as Link
from bpftrace_sys.api import LockError as LockError
from bpftrace_sys.api import Map as Map
from bpftrace_sys.api import Named as Named
from bpftrace_sys.api import Outside as Outside
from bpftrace_sys.api import Place as Place
from bpftrace_sys.api import Program as Program
from bpftrace_sys.api import Refusal as Refusal
from bpftrace_sys.api import Run as Run
from bpftrace_sys.api import RunError as RunError
from bpftrace_sys.api import RunTimeoutError as RunTimeoutError
from bpftrace_sys.api import Trace as Trace
from bpftrace_sys.api import TraceError as TraceError
from bpftrace_sys.api import Verdict as Verdict
from bpftrace_sys.api import check as check
from bpftrace_sys.api import diff as diff
from bpftrace_sys.api import open_trace as open_trace
from bpftrace_sys.api import run as run

__version__: str
