"""What an engine has, as pages for the user's own browser: read only, a client of the engine as others are."""
