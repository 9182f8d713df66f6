"""The engine of an ordinary user: the same engine, inside namespaces of the user's own (I10).

    keeper    a process that holds them: a user, a mount and a network namespace for one $ORLOP_RUN. It stays while
              containers run, so that an engine that dies finds its way back (setns); keeper.json says who it is
    engine    joins them when it starts; one thread of it stays in the machine's network namespace (namespace.leave)
    uplink    pasta or slirp4netns: what connects the network namespace with the machine's

In the user namespace the user is root, and its subordinate ids (subuid(5)) are the other users; without any, there is
one id, and nobody else.
"""
