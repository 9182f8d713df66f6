"""The registry server: the OCI distribution specification over `orlop.image.repositories`."""
