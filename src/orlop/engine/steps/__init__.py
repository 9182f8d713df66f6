"""What builds are made with: trees that become layers, unlisted containers that run one command, the cache's records.

workspace  a writable tree above layers, and how it becomes the next one
run        one command in it, in a container that no list shows
cache      what a step made, found by what it was made from
"""
