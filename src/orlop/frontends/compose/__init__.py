"""Compose projects: files of the compose specification -> requests of the engine's verbs -> a plan -> its steps.

    document       YAML with the place of every value
    interpolation  ${VARIABLE} in it
    fields         one converter for each key: short forms become long ones, an unknown key is an error with its place
    loading        several files, `include`, `extends`, .env: one merged document (merging)
    project        the document as objects; profiles; names of what belongs to the project
    request        a service as a ContainerRequest
    observed       what of the project there is
    plan           what differs and why, as steps
    steps          the steps, in the order of dependencies, side by side where they may be

It decides nothing that the engine decides: what is made is labels on containers, networks and volumes, the ones that
docker's Compose sets, so that either finds what the other has made.
Source: the compose specification (compose-spec/spec.md and its JSON schema, 2026-06); texts and names as docker
compose 2.
"""
