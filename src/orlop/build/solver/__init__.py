"""How vertices become trees: one module for each kind of step, what they read, and what the cache knows of them.

solve                   who is next; results, the cache's look-ups
sources files runs      what each kind of vertex does
tree digests glob        what is read
copy chmod              what is written
mounts cachemounts agent        what a command sees beside its tree
keys                    what a step is made from
"""
