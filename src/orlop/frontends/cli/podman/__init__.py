"""The command line under the name `podman`: where docker and podman mean different things by the same words."""
