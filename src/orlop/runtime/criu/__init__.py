"""CRIU: a container's processes written into files, and made again from them.

`criu swrk FD` serves requests on a SEQPACKET socket: messages of protocol buffers (rpc.proto of CRIU), one a
packet. This package knows which messages; the command line around it is runtime.cli.checkpoint and .restore.
Only root, and only those two verbs, load it.
"""
