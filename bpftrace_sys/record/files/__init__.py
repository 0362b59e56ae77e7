"""Files that a tracee names: reached, and read, without waiting for who may never answer.

The rule, in this one place: bpfstrace itself asks a file system about a file of a tracee's choice
only where the kernel answers by itself. One that has to ask somebody (FUSE's server, which may be
a tracee that stands in a stop; a server in the network) is asked by a process of ours that can be
left behind, never in a stop, and not again once it was late.
"""
