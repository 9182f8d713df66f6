"""The core: every verb and every durable fact. `engine.open_engine` is the door, the noun modules hold the verbs."""
