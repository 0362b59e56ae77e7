"""Tests, in folders as the packages that they test; docs/testing.md says how to run them."""
