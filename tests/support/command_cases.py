"""Commands."""

from typing import Any

from commands import user
from tiny_bundle import Tiny


def asked(tiny: Tiny) -> list[dict[str, Any]]:
    """Requests that say how many items they want and which; the last has an unknown id in its list."""
    few = tiny.item_ids[10:15]
    return [
        user("plain", "1", "2"), user("one", "3") | {"k": 1}, user("many", "1", "2") | {"k": 30},
        user("few", "3") | {"k": 5, "allow": few}, user("fewer", "3") | {"k": 5, "allow": few, "deny": [10, "11"]},
        user("none", "4") | {"allow": []}, user("odd", "4") | {"k": 2, "allow": ["?", *few], "deny": ["!"]},
    ]  # fmt: skip
