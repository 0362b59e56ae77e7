"""Pure decoders: bytes of a stopped tracee in, named values out.

Nothing here does I/O, knows ptrace or prints.  The package imports only the
standard library and construct.
"""
