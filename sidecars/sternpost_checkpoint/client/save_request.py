"""A checkpoint that is asked for from outside, because a node is about to go: `saveAtStep` in attempt.json."""

from __future__ import annotations

from pathlib import Path

from sternpost_checkpoint.shm.files import read_json

FILE = "attempt.json"


class SaveRequest:
    """Looks at the file, and reads it only when it changed: a rank asks after every step."""

    def __init__(self, control: Path | None, job_uid: str, attempt_id: str) -> None:
        self._path = None if control is None else control / FILE
        self._job_uid = job_uid
        self._attempt_id = attempt_id
        self._seen: tuple[int, int, int] | None = None
        self._step: int | None = None

    def step(self) -> int | None:
        """The step to save after, as far as this rank has heard; None without such a request for this very attempt."""
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return self._step  # what was heard before counts
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            value = read_json(self._path)
            if value is not None:
                self._seen, self._step = seen, self._read(value.get("spec"))
        return self._step

    def _read(self, spec: object) -> int | None:
        if not isinstance(spec, dict) or spec.get("action") != "run" or spec.get("id") != self._attempt_id:
            return None
        if self._job_uid and spec.get("jobUid") != self._job_uid:
            return None
        step = spec.get("saveAtStep")
        return step if isinstance(step, int) and not isinstance(step, bool) else None
