"""bpfstrace: strace for eBPF. The engine, the trace file, the model, the renderers, the CLI."""

__version__ = "0.1.0"
