"""The Container Device Interface: what vendors' files say that a container needs to use a device.

    blocks   their YAML -> values
    form     the parts of those files that containers get
    specs    the files of the machine -> devices by their names
    edits    what a device needs -> a container's OCI spec

Source: cncf-tags/container-device-interface, SPEC.md (versions 0.3.0 to 1.1.0).
"""
