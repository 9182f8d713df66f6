"""From the sections of an OCI spec to operations: pure functions, one module for each section.

Each takes the records of orlop.spec.runtime and HostFacts, checks what the records can't check by themselves, and
returns operations; what can't be honoured and was not asked for by name goes to `warnings`.
"""
