"""What the tests share: the host before and after, allowed skips, a private engine, a terminal. See `conftest.py`."""
