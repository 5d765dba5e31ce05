"""From a manifest and a state directory to a job that can be run: fresh, or where an earlier run left it."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sternpost_operator.cluster.local.node_process import end_orphans
from sternpost_operator.cluster.local.object_store import DamagedObjectError, ObjectStore
from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.cluster.local.pod_spec import WORKING_DIR_ANNOTATION
from sternpost_operator.local_run import shared_memory
from sternpost_operator.local_run.state import (
    RunRecord,
    Start,
    StateDirectory,
    StateError,
    decide_start,
    digest,
    resolve_storage,
)
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import TrainingJobStatus


@dataclass(frozen=True)
class Prepared:
    """What a run begins with."""

    job: TrainingJob
    record: RunRecord
    start: Start


def localize(job: TrainingJob, manifest_folder: Path, state_dir: Path) -> TrainingJob:
    """The job as it runs on this machine: its storage resolved, its commands started in the manifest's folder.

    Raises `StateError` for a storage that cannot be meant.
    """
    annotations = {WORKING_DIR_ANNOTATION: str(manifest_folder.absolute())} | job.metadata.annotations
    # What only a cluster writes does not come from a file.
    metadata = job.metadata.model_copy(
        update={
            "annotations": annotations,
            "uid": "",
            "generation": 1,
            "resource_version": None,
            "creation_timestamp": None,
            "deletion_timestamp": None,
        }
    )
    spec = job.spec
    if spec.checkpoint is not None:
        storage = resolve_storage(spec.checkpoint.storage, state_dir)
        spec = spec.model_copy(update={"checkpoint": spec.checkpoint.model_copy(update={"storage": storage})})
    return job.model_copy(update={"metadata": metadata, "spec": spec, "status": TrainingJobStatus()})


def prepare(
    job: TrainingJob,
    state: StateDirectory,
    paths: LocalPaths,
    *,
    fresh: bool,
    keep: bool,
    say: Callable[[str], None],
) -> Prepared:
    """End what an earlier run left running, decide, and put the job's object in place. The state directory is held.

    Raises `StateError` with the way out, and `OSError`.
    """
    previous = _previous(state, fresh=fresh)
    stored = _stored_job(paths, previous, fresh=fresh)
    spec_digest = digest(job.spec)
    start = decide_start(
        previous,
        stored.status.phase if stored is not None else None,
        job=job.metadata.name,
        spec_digest=spec_digest,
        fresh=fresh,
    )
    orphans = end_orphans(paths)
    if orphans:
        say(f"ended {orphans} processes that an earlier run had left behind")
    shared_memory.check(job.spec, shared_memory.free_bytes())
    if start is Start.FRESH:
        return _fresh(job, state, paths, spec_digest, keep=keep, say=say)
    return _resumed(state, paths, previous, stored, say)


def _fresh(
    job: TrainingJob,
    state: StateDirectory,
    paths: LocalPaths,
    spec_digest: str,
    *,
    keep: bool,
    say: Callable[[str], None],
) -> Prepared:
    if keep:
        beside = state.set_aside()
        if beside is not None:
            say(f"what the earlier run left is now in {beside}")
    else:
        state.discard()
    record = RunRecord(job=job.metadata.name, uid=str(uuid.uuid4()), spec_digest=spec_digest, started_at=time.time())
    # The record first: with it, what a crash leaves half made can be removed by the next run.
    state.write_run(record)
    paths.make()
    named = job.model_copy(update={"metadata": job.metadata.model_copy(update={"uid": record.uid})})
    return Prepared(ObjectStore(paths.objects).put_job(named), record, Start.FRESH)


def _resumed(
    state: StateDirectory,
    paths: LocalPaths,
    previous: RunRecord | None,
    stored: TrainingJob | None,
    say: Callable[[str], None],
) -> Prepared:
    if previous is None or stored is None:
        raise StateError(f"{state.root} has nothing to resume; start over with --fresh")
    # All Pods and nodes of the earlier run are gone with their processes: new nodes of the same names are clean.
    for kind in ("pods", "nodes"):
        shutil.rmtree(paths.objects / kind, ignore_errors=True)
    state.progress.unlink(missing_ok=True)
    paths.make()
    ObjectStore(paths.objects)
    record = previous.model_copy(update={"runs": previous.runs + 1})
    state.write_run(record)
    step = stored.status.attempt.last_step
    known = f", which had completed step {step}" if step is not None else ""
    say(f"resuming job {stored.metadata.name} after attempt {stored.status.attempt.number}{known}")
    return Prepared(stored, record, Start.RESUME)


def _previous(state: StateDirectory, *, fresh: bool) -> RunRecord | None:
    try:
        return state.read_run()
    except StateError:
        if fresh:
            return None
        raise


def _stored_job(paths: LocalPaths, previous: RunRecord | None, *, fresh: bool) -> TrainingJob | None:
    if previous is None or fresh or not paths.objects.is_dir():
        return None
    try:
        return ObjectStore(paths.objects).get_job(previous.job)
    except DamagedObjectError as error:
        raise StateError(f"{error}; or start over with --fresh (the job's progress is then lost)") from error
