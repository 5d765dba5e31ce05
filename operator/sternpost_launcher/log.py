"""The launcher's own log: `[sternpost] TIME LEVEL MESSAGE key=value …`."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timezone
from typing import Callable, Union

Value = Union[str, int, float, bool, None]
_PLAIN = re.compile(r"[A-Za-z0-9_./:@,+-]+")


def format_line(at: float, level: str, message: str, values: dict[str, Value]) -> bytes:
    """One line for Unix time `at`, in UTC; values with blanks or control characters are quoted as JSON."""
    stamp = datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    words = [f"[sternpost] {stamp} {level} {' '.join(message.split())}"]
    for key, value in values.items():
        text = str(value)
        words.append(f"{key}={text if _PLAIN.fullmatch(text) else json.dumps(text)}")
    return " ".join(words).encode("utf-8", "replace") + b"\n"


class Log:
    """Writes lines through `write`, which must not block: a reader that stalls may not stall the launcher."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._told: dict[str, str] = {}

    def info(self, message: str, **values: Value) -> None:
        """What happened."""
        self._write(format_line(time.time(), "info", message, values))

    def warning(self, message: str, **values: Value) -> None:
        """What went wrong and is dealt with."""
        self._write(format_line(time.time(), "warning", message, values))

    def error(self, message: str, **values: Value) -> None:
        """What went wrong and ends something."""
        self._write(format_line(time.time(), "error", message, values))

    def once(self, message: str, problem: str) -> None:
        """A warning when `problem` appears or changes, not as long as it lasts; empty: there is none now."""
        if problem and self._told.get(message) != problem:
            self.warning(message, problem=problem)
        self._told[message] = problem
