"""The library: what `import orlop` offers. See docs/sdk.md.

    operations     every operation once, as coroutines over a Transport: the asynchronous client
    blocking       the same operations, driven to their end at once: the synchronous client
    transport      how bytes come and go: on blocking sockets, or in an event loop
    values         what operations take and return

The blocking transport's coroutines never suspend, so that the synchronous client needs no event loop (`drive`).
"""
