"""The one way a chore gives up: a sentence for the person at the keyboard, no traceback."""


class Failure(Exception):
    """str() says what could not be done and what to do about it."""
