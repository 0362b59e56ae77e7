"""The engine made of ptrace."""
