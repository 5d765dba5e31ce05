"""The state directory of a run: who holds it, what an earlier run left, fresh start or resume."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from sternpost_operator.local_run.snapshot import Injected, write_atomically
from sternpost_operator.resources.base import Model
from sternpost_operator.resources.training_job import TrainingJobSpec
from sternpost_operator.resources.training_job_status import Phase

MAX_JOURNAL_BYTES = 64 * 1024 * 1024


class StateError(Exception):
    """The state directory cannot be used; the message says why, and the way out."""


class RunRecord(Model):
    """What `run.json` remembers of a job from run to run."""

    job: str
    uid: str
    spec_digest: str
    started_at: float
    """Unix seconds of the first run."""
    runs: int = 1
    """How many times it was run, resumed ones included."""


class Start(StrEnum):
    """How a run begins."""

    FRESH = "fresh"
    RESUME = "resume"


def decide_start(previous: RunRecord | None, phase: Phase | None, *, job: str, spec_digest: str, fresh: bool) -> Start:
    """Fresh start or resume; raises `StateError` when what is there is another, unfinished job.

    `phase` is that of the job as it was left, None if its object was never written.
    """
    if fresh or previous is None or phase is None or phase.terminal:
        return Start.FRESH
    if previous.job != job:
        raise StateError(
            f"the state directory holds the unfinished job {previous.job!r}, not {job!r}: "
            "finish that one, choose another --state-dir, or give it up with --fresh"
        )
    if previous.spec_digest != spec_digest:
        raise StateError(
            f"the manifest of the unfinished job {job!r} was changed since it was started: restore the manifest to "
            "resume the job, choose another --state-dir, or start over with --fresh (its progress is then lost)"
        )
    return Start.RESUME


def digest(spec: TrainingJobSpec) -> str:
    """The same for the same spec, however it was written down."""
    content = json.dumps(spec.to_wire(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


class StateDirectory:
    """Files of a run beside those of the cluster. One process at a time holds it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.lock_file = self.root / "run.lock"
        self.run_log = self.root / "run.log"
        """The supervisor's own log; it lasts over all runs."""
        self.run_file = self.root / "run.json"
        self.journal = self.root / "injections.jsonl"
        self.progress = self.root / "progress.json"
        self.losses = self.root / "loss.jsonl"
        self.report = self.root / "report.json"
        self.memory_database = self.root / "memory.db"
        self.memory_address = self.root / "memory.json"
        self.logs = self.root / "logs"
        self.operator_log = self.logs / "operator.log"
        self.objects = self.root / "objects"
        self.volumes = self.root / "volumes"

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the directory while the block runs; raises `StateError` if another process does, or it cannot be made."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"cannot use {self.root} as state directory: {error.strerror or error}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise StateError(
                    f"{self.root} is in use by the run with process id {holder}: wait for it, stop it with Ctrl-C or "
                    f"`kill {holder}`, or choose another --state-dir"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            self.logs.mkdir(exist_ok=True)
            yield
        finally:
            os.close(descriptor)  # ends the lock, as the end of the process does

    def read_run(self) -> RunRecord | None:
        """What an earlier run left; None if there was none. Raises `StateError` when the file is damaged."""
        try:
            return RunRecord.model_validate_json(self.run_file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise StateError(f"{self.run_file} is damaged ({_first(error)}): start over with --fresh") from error

    def write_run(self, record: RunRecord) -> None:
        """Remember the run."""
        write_atomically(self.run_file, record.model_dump_json(by_alias=True).encode())

    def discard(self) -> None:
        """Remove all that an earlier run left, checkpoints below this directory included; the lock stays held.

        Raises `StateError` if no run made what is there: it is somebody's.
        """
        for entry in self._entries():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        # Last, for it is what tells that all the rest may be removed.
        self.run_file.unlink(missing_ok=True)
        self.logs.mkdir(exist_ok=True)

    def set_aside(self) -> Path | None:
        """Move all that an earlier run left to a folder beside this one; which, or None if there was nothing.

        Raises `StateError` as `discard` does.
        """
        entries = self._entries()
        if not self.run_file.exists():
            return None
        beside = next(
            folder
            for number in itertools.count(1)
            if not (folder := self.root.with_name(f"{self.root.name}.{number}")).exists()
        )
        beside.mkdir(mode=0o700)
        for entry in (*entries, self.run_file):
            entry.rename(beside / entry.name)
        self.logs.mkdir(exist_ok=True)
        return beside

    def _entries(self) -> list[Path]:
        """All but what the current run needs from its first moment: lock, log and `run.json`."""
        lasting = (self.lock_file, self.run_log, self.run_file)
        entries = [entry for entry in self.root.iterdir() if entry not in lasting]
        strange = [entry for entry in entries if entry != self.logs]
        if strange and not self.run_file.exists():
            raise StateError(
                f"{self.root} holds {strange[0].name!r} and was not made by `sternpost run`: choose another --state-dir"
            )
        return entries

    def read_journal(self) -> list[Injected]:
        """The injections that were done; a line torn by a crash is left out, as its fault was not reported done."""
        try:
            with self.journal.open("rb") as file:
                lines = file.read(MAX_JOURNAL_BYTES).splitlines()
        except FileNotFoundError:
            return []
        done = []
        for line in lines:
            with contextlib.suppress(ValidationError):
                done.append(Injected.model_validate_json(line))
        return done

    def append_journal(self, injected: Injected) -> None:
        """Write down that it was done; on the disk when this returns."""
        with self.journal.open("ab") as file:
            # A torn line before this one must not swallow it.
            if file.tell() and not self._ends_with_newline():
                file.write(b"\n")
            file.write(injected.model_dump_json(by_alias=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _ends_with_newline(self) -> bool:
        with self.journal.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def dead_nodes(journal: list[Injected]) -> tuple[str, ...]:
    """Nodes that an injection has killed: they stay dead, also over a resume."""
    return tuple(sorted({each.node for each in journal if each.kind == "kill" and each.node}))


def resolve_storage(uri: str, root: Path) -> str:
    """The storage URI with `file://./…` put below the state directory; other URIs stay. Raises `StateError`."""
    if not uri.startswith("file://"):
        return uri
    path = uri.removeprefix("file://")
    if path.startswith("/"):
        return uri
    if not path.startswith("./"):
        raise StateError(
            f"checkpoint.storage {uri!r} names a host; write file:///absolute/path, "
            "or file://./path for a folder in the state directory"
        )
    target = Path(os.path.normpath(root / path))
    if not target.is_relative_to(root) or target == root:
        raise StateError(f"checkpoint.storage {uri!r} leaves the state directory; write file:///absolute/path instead")
    return f"file://{target}"


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
