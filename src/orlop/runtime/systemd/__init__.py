"""cgroups that systemd makes: a scope for each container (`cgroupsPath` as slice:prefix:name, `--systemd-cgroup`).

Where systemd is process 1 it owns the hierarchy, so a scope is asked for over D-Bus and delegated to us; what is below
it we write ourselves. Imported only where such a path was asked for.
"""
