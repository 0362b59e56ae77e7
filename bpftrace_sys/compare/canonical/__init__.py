"""Calls by their meaning: what of a trace is the same each time it is recorded.

A pid is a place in the tree of processes, an fd or id is the object that it
stands for, an address is what lies there, a time is left out.  ``replay
--canonical`` prints what comes out of here, and ``diff`` compares it.

:class:`~bpftrace_sys.compare.canonical.canon.Canon` hands on entries, which ``fields.py``
and ``insns.py`` fill in.  Objects get their names when all of a trace has been seen,
so in texts an object is a reference (see ``text.py``).
"""
