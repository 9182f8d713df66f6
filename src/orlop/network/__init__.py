"""What a container's network is made of: subnets, bridges, endpoints, the rules of the firewall, names.

    subnet     arithmetic of addresses
    pools      which subnet a network gets, which address an endpoint
    links      bridges and interfaces, over rtnetlink
    firewall   the one table of rules of this engine, over nftables
    hostports  ports of the machine: who has one
    probe      a real packet to a port, and what the machine's rules did with it
    footprint  what one engine has on the machine, under which names, and how all of it goes
    sweeper    the process that removes it when the engine left before its containers

Nothing here decides what is wanted, and nothing is kept: the engine does both.
"""
