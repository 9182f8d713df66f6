"""Images in places that are neither a registry nor our store: layouts and directories that other tools made."""
