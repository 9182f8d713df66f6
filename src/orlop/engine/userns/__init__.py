"""User namespaces of root's containers: whose root is nobody on the machine.

    modes     what --userns asks for: docker's and podman's words
    ranges    which ids a container gets: kept in its record, disjoint from everybody else's

On disk nothing changes hands: layers and volumes are shown through id-mapped mounts (mount_setattr(2)), so that cp,
commit, export and diff see the owners that the container sees.
"""
