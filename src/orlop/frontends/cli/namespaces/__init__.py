"""Namespaces by hand: `unshare` and `nsenter`, as util-linux has them. They need no engine."""
