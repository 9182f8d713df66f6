"""User namespaces of containers: whose root is nobody on the machine, or whose user is who started it.

    modes     what --userns asks for: docker's and podman's words
    ranges    which ids a container gets: kept in its record, disjoint from everybody else's
    kept      the maps of keep-id and nomap, and whose files on disk have other owners than the container sees

Of root's containers nothing changes hands on disk: layers and volumes are shown through id-mapped mounts
(mount_setattr(2)), so that cp, commit, export and diff see the owners that the container sees.
"""
