"""Virtual machines that run an engine, its docker socket appearing on this side: translation, and no engine needed.

CLI -> store (what there is) -> owner, one process per machine: QEMU, streams -> virtio port -> guest: streams, engine
"""
