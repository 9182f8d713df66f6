"""Sockets that speak docker's API with less power than docker.sock: the same routes, behind a gate.

    rights      which right each route needs: a route without one is closed
    gate        what a connection may see and do: labels, creations, what answers leave out
    door        docker's Door with the gate in front of every handler, and a line of audit for every request
    serve       opens and closes them as they are made, removed, or expire

Invariants:
1. Denied by default: a route, a field of a creation or a filter that no table here names is refused.
2. What is decided on is what is executed: the route is found once, and its handler is called with the same query and
   body, parsed once (SEC-70).
3. What lies outside the labels is not there: it answers as a name that nobody has.
4. A request that can't be audited is not served.
"""
