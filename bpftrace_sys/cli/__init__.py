"""The command line: options and settings, messages, and a file per command."""
