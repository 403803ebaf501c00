"""Which toy world is drawn: the first, on which the shipped models were trained, or the second.

The second is easier on a VAE of four channels: backgrounds out of focus, thicker wrinkles, larger
marks, wider hatching. FLASHFACE_TOY_WORLD=2 chooses it; models for it are in the making.
"""

import os
from typing import TypeVar

WORLD = int(os.environ.get("FLASHFACE_TOY_WORLD", "1"))
Value = TypeVar("Value")


def by_world(first: Value, second: Value) -> Value:
    return second if WORLD == 2 else first
