"""Volumes: directories that outlive containers, and everything that is mounted into these.

store          volumes on disk: volume.json, names, what sweeps the dead
local          the options of docker's `local` driver
verbs          create, list, inspect, remove, prune
mountpoints    what a request wants mounted -> mount points, decided (container.json)
preparation    what a creation does for its mount points: volumes made and filled, trees of images
copyup         what the image has at a place -> a new volume
live           mounts of a running container
"""
