"""What lies in a container's root file system: copied out and in, compared, exported, made an image."""
