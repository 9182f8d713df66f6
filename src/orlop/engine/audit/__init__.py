"""What a container is said to be, property by property, with the facts: secure, isolated, integrated, manageable,
transparent.

    facts     one function for each property: pure, from the record, the OCI spec and what was seen
    verb      looks: at the record, the spec, and at /proc while it runs
"""
