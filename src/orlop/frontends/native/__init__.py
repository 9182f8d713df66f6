"""The engine's own door: `wire` (both ends), `client` and `start` (a client's end), `server` (the engine's end).

The process that runs `server.serve(ready_fd, idle_s)` is `orlop serve` (orlop.frontends.cli.serve). Before it calls:
the run directory is made and checked, the engine's lock is held by an inherited or own descriptor for the whole life of
the process (so the server takes none), the working directory is / and the umask 077. The server writes start.READY to
ready_fd and closes it once it listens; an OrlopError that it raises before that is reported there by the caller.
idle_s None means: serve until told to stop. It returns the exit status.
"""
