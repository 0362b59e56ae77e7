"""Feature probes: the calls by which loaders find out what a kernel can do.

libbpf, BCC, bpftrace, cilium/ebpf and bpftool load tiny programs, maps and BTF
and close them again, or make calls that cannot succeed and look at the errno.
They are recognised by their shape: a table row each, in ``programs.py``, ``maps.py``
and ``btf.py``, or for other calls in ``matchers.py``.  docs/probes.md says who sends
what.

Some shapes (``r0 = 0; exit``, an array of one entry) could as well be somebody's
own first program.  Those are weak: they count as probes only in company, after
the same process has sent an unmistakable one, or when the next fd shows that
they were closed unused; and no longer once something is done with them.
"""
