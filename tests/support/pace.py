"""How much longer this machine takes than bounds were written for: an emulated one takes ten times as long."""

from __future__ import annotations

import os

# In every bound of time of a test that runs there: `30 * SLOW`.
SLOW = float(os.environ.get("ORLOP_TEST_SLOW", "1"))
