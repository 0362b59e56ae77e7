"""Formats inside of calls: instructions, BTF, netlink messages."""
