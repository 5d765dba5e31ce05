"""The folder that is the local control plane: one JSON file per object, as in `docs/contracts.md`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import structlog
from pydantic import ValidationError

from sternpost_operator.cluster.base import ConflictError
from sternpost_operator.cluster.local.json_files import (
    MAX_BYTES,
    GarbageError,
    JsonObject,
    encode,
    read_object,
    remove_folder,
    write_bytes,
    write_object,
)
from sternpost_operator.cluster.local.paths import check_name
from sternpost_operator.resources.training_job import TrainingJob

_logger = structlog.get_logger(__name__)

KINDS = ("trainingjobs", "attempts", "nodes", "secrets")
MAX_ANOMALIES = 1000
"""Of one job; the newest count."""
_MAX_ANOMALY_BYTES = 64 * 1024
_TEMPORARY_SECONDS = 60
_MAX_REPORTED = 10_000


class DamagedObjectError(OSError):
    """An object's file is there and holds garbage; the message names the file."""


class ObjectStore:
    """Objects by kind and name. Every write is whole or not there; every read is bounded.

    What must survive a power loss (jobs, attempts, secrets) is synced to disk. Names are checked, so that none leads
    out of the folder; `ValueError` otherwise.
    """

    def __init__(self, objects: Path) -> None:
        self.objects = objects
        self._reported: set[tuple[str, str, object]] = set()
        for kind in (*KINDS, "anomalies", "pods"):
            (objects / kind).mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, kind: str, name: str) -> JsonObject | None:
        """The object, or None if there is none or its file is garbage (which is logged); raises `OSError`."""
        return self._read(self._path(kind, name))

    def put(self, kind: str, name: str, value: JsonObject, *, secret: bool = False, durable: bool = False) -> None:
        """Write the object, whatever was there; raises `OSError`."""
        write_object(self._path(kind, name), value, mode=0o600 if secret else 0o644, durable=durable)

    def create(self, kind: str, name: str, value: JsonObject, *, secret: bool = False) -> bool:
        """Write the object if there is none; whether it was written. Raises `OSError`."""
        path = self._path(kind, name)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        write_object(temporary, value, mode=0o600 if secret else 0o644, durable=True)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def delete(self, kind: str, name: str) -> bool:
        """Remove the object; False if there was none. Raises `OSError`."""
        try:
            self._path(kind, name).unlink()
        except FileNotFoundError:
            return False
        return True

    def list_all(self, kind: str) -> dict[str, JsonObject]:
        """All readable objects of a kind by name; garbage is left out, and logged once."""
        found = {}
        for path in self._files(self.objects / self._kind(kind)):
            value = self._read(path)
            if value is not None:
                found[path.stem] = value
        return dict(sorted(found.items()))

    # Jobs

    def get_job(self, name: str) -> TrainingJob | None:
        """The job, or None if there is none; raises `DamagedObjectError` rather than take garbage for a job that is gone."""
        path = self._path("trainingjobs", name)
        try:
            value = read_object(path)
            return None if value is None else TrainingJob.model_validate(value)
        except (GarbageError, ValidationError) as error:
            raise DamagedObjectError(
                f"{path} does not hold a TrainingJob: {error}; delete it and apply the job again"
            ) from error

    def put_job(self, job: TrainingJob) -> TrainingJob:
        """Create the job (no `metadata.resourceVersion`) or replace the version it was read as; the job as stored.

        Raises `ConflictError` if it exists already, is gone, or is another version; `DamagedObjectError`, `OSError`.
        """
        name = job.metadata.name
        with self._lock():
            stored = self.get_job(name)
            version = 0
            metadata: dict[str, object] = {}
            if job.metadata.resource_version is None:
                if stored is not None:
                    raise ConflictError(f"TrainingJob {name} exists already; choose another name or delete it")
                metadata["uid"] = job.metadata.uid or str(uuid.uuid4())
                metadata["creation_timestamp"] = job.metadata.creation_timestamp or datetime.now(UTC)
            else:
                if stored is None:
                    raise ConflictError(f"TrainingJob {name} is gone")
                same = (stored.metadata.uid, stored.metadata.resource_version)
                if same != (job.metadata.uid, job.metadata.resource_version):
                    raise ConflictError(
                        f"TrainingJob {name} is version {same[1]} of {same[0]}, "
                        f"not {job.metadata.resource_version} of {job.metadata.uid}"
                    )
                version = _number(stored.metadata.resource_version)
                metadata["uid"] = stored.metadata.uid
                metadata["creation_timestamp"] = stored.metadata.creation_timestamp
                metadata["generation"] = stored.metadata.generation + (stored.spec != job.spec)
            metadata["resource_version"] = str(version + 1)
            written = job.model_copy(update={"metadata": job.metadata.model_copy(update=metadata)})
            content = encode(written.to_wire())
            if len(content) > MAX_BYTES:
                raise ValueError(f"TrainingJob {name} is larger than {MAX_BYTES} bytes")
            write_bytes(self._path("trainingjobs", name), content, mode=0o644, durable=True)
            return written

    def delete_job(self, name: str) -> bool:
        """Remove the job's object, and nothing of what it made; False if there was none."""
        with self._lock():
            return self.delete("trainingjobs", name)

    def list_jobs(self) -> list[TrainingJob]:
        """All jobs that can be read, by name."""
        found = []
        for path in sorted(self._files(self.objects / "trainingjobs")):
            try:
                job = self.get_job(path.stem)
            except (DamagedObjectError, ValueError) as error:
                self._report(path, str(error))
                continue
            if job is not None:
                found.append(job)
        return found

    # Pods: a folder each, so that creation and removal are one rename

    def create_pod(self, manifest: JsonObject) -> bool:
        """Create the Pod object; False if one of that name exists. Raises `OSError`."""
        name = check_name(manifest["metadata"]["name"])
        pods = self.objects / "pods"
        new = pods / f".new-{name}-{uuid.uuid4().hex[:8]}"
        new.mkdir(mode=0o700)
        try:
            write_object(new / "pod.json", manifest)
            new.rename(pods / name)  # succeeds onto nothing or onto an empty folder only
        except OSError:
            exists = (pods / name / "pod.json").exists()
            remove_folder(new)
            if not exists:
                raise
            return False
        return True

    def write_pod(self, manifest: JsonObject) -> bool:
        """Write a changed Pod object; False if it was removed meanwhile. Raises `OSError`."""
        path = self.objects / "pods" / check_name(manifest["metadata"]["name"]) / "pod.json"
        try:
            write_object(path, manifest)
        except FileNotFoundError:
            return False
        return True

    def remove_pod(self, name: str, uid: str) -> bool:
        """Remove exactly this Pod object; False if there is none. Its processes are not looked at."""
        manifest = self.pod(name)
        if manifest is None or manifest["metadata"].get("uid") != uid:
            return False
        return remove_folder(self.objects / "pods" / check_name(name))

    def pod(self, name: str) -> JsonObject | None:
        """The Pod's manifest, or None if there is none. A damaged one is put aside: then there is none, either."""
        folder = self.objects / "pods" / check_name(name)
        try:
            manifest = read_object(folder / "pod.json")
        except GarbageError as error:
            manifest, problem = {}, str(error)
        else:
            problem = "metadata or spec is not as it should be"
        if manifest is None:
            return None
        metadata, spec = manifest.get("metadata"), manifest.get("spec")
        usable = isinstance(metadata, dict) and isinstance(spec, dict) and metadata.get("name") == name
        if usable and isinstance(metadata, dict) and isinstance(metadata.get("uid"), str):
            return manifest
        _logger.error("damaged pod put aside", pod=name, problem=problem)
        remove_folder(folder)
        return None

    def pod_status(self, name: str, uid: str) -> JsonObject | None:
        """What the node's agent wrote of exactly this Pod, or None."""
        found = self._read(self.objects / "pods" / check_name(name) / "status.json")
        if found is None or found.get("uid") != uid or not isinstance(found.get("status"), dict):
            return None
        return found

    def write_pod_status(self, name: str, value: JsonObject) -> None:
        """For a Pod that no agent knows yet; raises `OSError`."""
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            write_object(self.objects / "pods" / check_name(name) / "status.json", value)

    def pods(self) -> list[JsonObject]:
        """All Pod manifests, by name."""
        found = []
        for folder in sorted((self.objects / "pods").iterdir()):
            if not folder.name.startswith("."):
                try:
                    manifest = self.pod(folder.name)
                except ValueError as error:
                    self._report(folder, str(error))
                    continue
                if manifest is not None:
                    found.append(manifest)
        return found

    # Anomalies: a folder for each job

    def anomalies(self, job: str) -> list[JsonObject]:
        """The job's newest anomalies as they are on disk; garbage is left out, and logged once."""
        folder = self.objects / "anomalies" / check_name(job)
        dated = []
        for path in self._files(folder):
            with contextlib.suppress(FileNotFoundError):
                dated.append((path.stat().st_mtime_ns, path))
        newest = sorted(dated)[-MAX_ANOMALIES:]
        values = (self._read(path, _MAX_ANOMALY_BYTES) for _, path in newest)
        return [value for value in values if value is not None]

    def delete_anomalies(self, job: str) -> None:
        """Forget what was seen of a job that is gone."""
        remove_folder(self.objects / "anomalies" / check_name(job))

    def report_once(self, kind: str, name: str, problem: str, version: object = None) -> None:
        """Log that something is unusable, however often it is looked at."""
        key = (kind, name, problem if version is None else version)
        if key not in self._reported:
            if len(self._reported) >= _MAX_REPORTED:
                self._reported.clear()
            self._reported.add(key)
            _logger.warning("object not readable", kind=kind, name=name, problem=problem)

    def sweep(self) -> None:
        """Remove what writers that were killed left half written."""
        oldest = time.time() - _TEMPORARY_SECONDS
        for path in self.objects.rglob(".*"):
            try:
                if path.lstat().st_mtime > oldest or path.name == ".lock":
                    continue
                if path.is_dir() and path.name.startswith((".new-", ".removed-")):
                    remove_folder(path)
                elif path.name.endswith(".tmp"):
                    path.unlink()
            except FileNotFoundError:
                continue

    def _kind(self, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")
        return kind

    def _path(self, kind: str, name: str) -> Path:
        return self.objects / self._kind(kind) / f"{check_name(name)}.json"

    def _files(self, folder: Path) -> list[Path]:
        try:
            return [path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith(".")]
        except FileNotFoundError:
            return []

    def _read(self, path: Path, limit: int = MAX_BYTES) -> JsonObject | None:
        try:
            return read_object(path, limit)
        except GarbageError as error:
            self._report(path, str(error))
            return None

    def _report(self, path: Path, problem: str) -> None:
        """Once for each version of a file."""
        try:
            version = path.stat().st_mtime_ns
        except OSError:
            version = 0
        self.report_once("file", str(path), problem, version)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer of jobs at a time, over processes."""
        descriptor = os.open(self.objects / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _number(version: str | None) -> int:
    return int(version) if version is not None and version.isdecimal() and len(version) < 19 else 0
