"""Pages: a report of a trace, and of what differs between two.

One file that needs nothing else: style sheet, script and data are inside.  Two
ways lead from a trace to what a browser shows, and neither takes markup:
:mod:`~bpftrace_sys.render.html.markup` escapes every string that becomes an
element, and what the script shows is JSON that becomes text nodes
(docs/report.md says why nothing slips through).
"""
