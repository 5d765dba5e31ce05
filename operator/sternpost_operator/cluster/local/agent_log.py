"""The agent's log: one JSON object a line, in the form of the other services' logs.

The agent does not load a logging library: it has to be up in a fraction of a second, several at a time.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


def log(level: str, event: str, **details: object) -> None:
    """Write one line to standard error."""
    line = {"timestamp": datetime.now(UTC).isoformat(), "level": level, "event": event} | details
    try:
        sys.stderr.write(json.dumps(line, default=str) + "\n")
        sys.stderr.flush()
    except OSError:
        return  # a full disk must not end the node
