"""Plugins of CNI: programs that any container runtime can call. CNI specification 1.1.0.

    main       a plugin's one life: environment and standard input in, result or error out
    request    what is asked for, checked; errors; results in the form of each version
    hostlocal  addresses from ranges, kept as the reference plugin keeps them
    bridge     a pair of links on a bridge, addresses by another plugin
    portmap    ports of the machine that lead to the container
    firewall   isolation between bridges
    loopback   `lo`

They are called orlop-cni-bridge and so on, so that they lie beside the reference plugins in one directory.
"""
