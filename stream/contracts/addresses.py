"""How the broker is written: one rule for the settings and for the producer."""

import re

_HOST = r"(\[[0-9a-fA-F:]+\]|[^,/:\s]+):\d+"
_BROKER = re.compile(rf"kafka://{_HOST}(,{_HOST})*")


def bootstrap_servers(broker: str) -> list[str]:
    """`kafka://a:9092,b:9092` as host:port of each. Raises ValueError with the rule."""
    if not _BROKER.fullmatch(broker):
        raise ValueError("must be kafka://host:port, several hosts with commas between")
    return broker.removeprefix("kafka://").split(",")
