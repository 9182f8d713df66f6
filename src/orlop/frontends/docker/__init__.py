"""The Docker Engine API: the door for the docker CLI, Compose, SDKs and everything else that has a DOCKER_HOST.

    door        versions, routes, errors, headers; nothing of any noun
    creation    docker's container object -> ContainerRequest
    containers execs images system ...  a table of routes each; table: all of them
    hijack      a connection that stops being HTTP: attach and exec

It translates: every route calls one verb of the engine. Nothing of it is imported before the first client comes.
"""
