"""Hands the Attempt to the launcher: `attempt.json` in the control folder."""

from __future__ import annotations

from pathlib import Path

from sternpost_eagle_eye.attempt import MAX_ATTEMPT_BYTES
from sternpost_eagle_eye.control_plane.attempt_document import AttemptDocument, parse_attempt
from sternpost_eagle_eye.files import read_bounded, write_whole


class AttemptHandover:
    """Never goes back: an older version than the one in the folder is not written, also after a restart."""

    def __init__(self, control_dir: Path, job_uid: str) -> None:
        self._path = control_dir / "attempt.json"
        self._job_uid = job_uid

    def standing(self) -> AttemptDocument | None:
        """What the launcher has now; None if that is nothing of this job, or garbage."""
        try:
            return parse_attempt(read_bounded(self._path, MAX_ATTEMPT_BYTES), self._job_uid)
        except (OSError, ValueError):
            return None

    def offer(self, document: AttemptDocument) -> bool:
        """Write it if it is newer than what stands there; True if it stands there now. Raises OSError."""
        standing = self.standing()
        if standing is not None:
            if standing.content == document.content:
                return True
            if document.attempt.order() < standing.attempt.order():
                return False
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, document.content)
        return True
