"""Bake files: many targets in one file, as `docker buildx bake` reads them. Text in, build options out.

    syntax      HCL's text -> blocks, attributes, expressions
    evaluate    expressions -> values; templates, operators, for
    functions   what expressions may call
    document    HCL or JSON -> variables, functions, groups, targets, with values in the order they are needed
    targets     inheritance, matrix, groups, --set -> what is to be built

Source: HCL's native syntax specification; docker's Bake file reference.
"""
