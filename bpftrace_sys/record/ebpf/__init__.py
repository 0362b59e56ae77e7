"""The engine made of eBPF: programs in the kernel, and what reads their ring."""
