"""Networks that programs of others make: the Container Network Interface, versions 0.3.0 to 1.1.0, its runtime's half.

    conflist   what a network configuration says: which plugins, in which order, with which capabilities
    plugin     one plugin run once: bounded in time and output
    client     ADD, DEL, CHECK, GC, STATUS over a whole list, with results handed from one to the next

https://www.cni.dev/docs/spec/. Plugins run as us, on this machine's side; nothing of a container chooses one.
"""
