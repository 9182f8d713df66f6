"""`orlop-runtime`: runc's command line over the runtime library. It needs no engine and knows none.

Callers are conmon, containerd's shim, docker and buildah: what they rely on is runc's flags, exit statuses, log file
and console protocol, so those are kept to the letter.
"""
