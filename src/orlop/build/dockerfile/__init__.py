"""The Dockerfile language: text in, records and graphs out. Nothing here reads a file or asks an engine.

    source        the text, places in it, errors that show the place
    lines         directives, comments, continued lines, here-documents -> Line
    fields        the forms of arguments: flags, JSON, words, NAME=value
    instructions  one record for each kind of instruction
    mounts        RUN --mount
    parse         Line -> instructions -> stages
    scope         which variables an instruction sees
    compile       stages -> graph; steps, copying: one function for each kind of instruction
    lint outline  what --check, --call=outline and --call=targets say

Source: docker's Dockerfile reference; BuildKit's frontend for the corners and the texts.
"""
