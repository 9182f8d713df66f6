"""netlink(7), spoken directly: messages and sockets, rtnetlink, nftables, and network namespaces to speak it in."""
