"""What differs between two traces, by meaning.

Pure: two :class:`~bpftrace_sys.compare.diff.side.Side`, each filled from a
:class:`~bpftrace_sys.compare.canonical.canon.Canon`, become
:class:`~bpftrace_sys.compare.diff.differences.Differences` by
:func:`~bpftrace_sys.compare.diff.compare.compare`.  docs/diff.md says what counts as a
difference.

First objects find their partners (by name and content), and partners get one
name.  Then calls are compared as texts in those names, by process and by the
object that they are about, so that the order of independent calls is no matter.
"""
