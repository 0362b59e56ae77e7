"""A trace in the terminal: calls, objects, attachments and listings in panes.

What is shown is gathered as for the report page (render/html/gather.py), by the one path from a
trace to renderers; the rows of calls lie in a file without a name, of which those are read that
are looked at.  Needs textual (the extra ``tui``); nothing here is imported without being asked for.
"""
