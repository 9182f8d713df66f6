"""The resolver of containers: one process for all of an engine's networks, alive without the engine.

    container --UDP, TCP to 127.0.0.11:53--> a socket in the container's own namespace, held by this process
    engine    --SEQPACKET: one JSON message + descriptors--> $ORLOP_RUN/dns.sock

    message   questions and answers on the wire, RFC 1035 and 6891: bounded, nothing decompressed that is not needed
    zone      who is called what in which network
    forward   what nobody here is called: the upstream servers, one after the other
    server    the process
    client    the engine's half

Nothing is on disk: the engine says who runs, and says it again to a resolver that had to be started anew.
"""
