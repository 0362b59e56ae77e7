"""The parts of tools/gen_steps.py: a walk's layouts as rows for programs in the kernel.

rows      what a row is, and the rows of a call
measures  what decoders/walk/measures.py says, as rows have it: lengths, and what selects
walker    goes over layouts, and makes rows of them
"""
