"""-k: the tracee's user-space stack at each call.  Imported only where it is asked for.

In the stop ``snapshot.py`` copies registers, a piece of the stack and the memory
map.  After it ``walk.py`` unwinds over the copy, with what the mapped files say
(``files.py``, ``elf_image.py``, ``cfi.py``, ``expression.py``), and
``symbol_table.py`` and ``perf_map.py`` name the frames.  docs/stacks.md has the rest.
"""
