"""Reads `launcher.json`. What is missing or garbage leaves the last good content in place, and is counted."""

from __future__ import annotations

import json
from pathlib import Path

import structlog
from pydantic import ValidationError

from sternpost_eagle_eye.files import Signature, read_bounded, signature
from sternpost_eagle_eye.vector import LauncherVector

MAX_LAUNCHER_BYTES = 256 * 1024
MAX_MESSAGE = 1024

log = structlog.get_logger()


class LauncherFile:
    """The launcher's file in the control folder."""

    def __init__(self, control_dir: Path) -> None:
        self._path = control_dir / "launcher.json"
        self._seen: Signature | None = None
        self.current: LauncherVector | None = None
        self.dropped = 0

    def poll(self) -> bool:
        """Read the file if it changed; True when more changed than the time it was written."""
        try:
            seen = signature(self._path)
            if seen is None or seen == self._seen:
                return False
            content = read_bounded(self._path, MAX_LAUNCHER_BYTES)
            read = parse_launcher(content)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            self._seen = seen
            self.dropped += 1
            log.warning("launcher.json ignored, its last content stands", path=str(self._path), error=str(error)[:500])
            return False
        self._seen = seen
        before, self.current = self.current, read
        return before is None or before.model_copy(update={"updated_at": read.updated_at}) != read


def parse_launcher(content: bytes) -> LauncherVector:
    """Raises ValueError for anything that is not the launcher's JSON; a long message is cut."""
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {type(value).__name__}")  # noqa: TRY004 - bad content, not a bad call
    if isinstance(value.get("message"), str):
        value["message"] = value["message"][:MAX_MESSAGE]
    # Before its first attempt a launcher has none to name.
    value = {name: content for name, content in value.items() if content is not None}
    try:
        return LauncherVector.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise ValueError(f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}") from error
