"""The parts of tools/gen_uapi.py: what to take, how to take it, how to write it.

spec     hand-written knowledge: which constants make which table
extract  headers and gcc -> facts (names, numbers, offsets)
render   facts -> decoders/uapi/*.py
"""
