"""The engine's own door: `wire` (both ends), `client` and `start` (a client's end), `server`, `verbs` (the engine's).

Who holds what: `start` takes the engine's lock (`rundir`) and lets the new process inherit it with a pipe to report on;
`orlop serve` (orlop.frontends.cli.verbs.engine) hands both to `server.serve`, which keeps the lock until its end.
"""
