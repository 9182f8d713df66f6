"""The verbs of containers and the facts about them.

lifecycle              create, start, run, remove
ends removal           stop, kill, wait, and what is done at an end; what remains of a container
execs streams listing  the other verbs; inspect and explain beside them
record state names     container.json; the state and the table of arrows between states; names and ids
freezing changes       pause; rename and update
processes usage        top; stats
pruning filters        prune; which containers a list shows
hostconfig             what of docker's object says how a container is bound to the machine
files watch            what is mounted into a container; ends are seen on pidfds
"""
