"""The noun `network`: which there are, who is in which, and the machine's links and rules that follow from it.

    store       network.json of each network; the three that are always there
    host        this machine's side: sockets, bridges, the table of rules, forwarding
    attachments who holds which address and port: endpoints.json of each running container
    attach      a container's place in its networks: taken before its start, given back after its end
    lifecycle   create, remove, prune, connect, disconnect
    listing     docker's JSON of networks, and of a container's part in them
    ports       which port of the machine a request gets
    reach       what else on the machine has a word in who reaches it
    explain     who reaches a port, and which rule decides

Invariants:
1. Everything on the machine follows from the files: what is missing is made again, what is too much is removed.
2. endpoints.json is written before anything of it is made, and removed after all of it is gone: whatever a dead engine
   left, the next one finds by it.
3. A bridge is there while an endpoint is on it, and at most until the engine leaves; what endpoints keep then goes with
   the last of them (network.sweeper).
"""
