"""The verbs of containers, one module for those that belong together; `commands` says which word leads where."""
