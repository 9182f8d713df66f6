"""Images that run before they are here: layers served from the registry as they are read, and fetched behind that.

    engine --orders--> server process   tables of contents -> skeletons -> FUSE -> one EROFS file for each layer
                                        then: the ordinary pull, in the background; then it ends

The server needs no engine, and the next engine finds it (`verb`). What it gives was proven chunk by chunk; what it
can't get is EIO inside the container. When the pull is through, the layers are ordinary ones.
"""
