"""The commands, grouped by what they work on. Each module is imported only when one of its commands runs."""
