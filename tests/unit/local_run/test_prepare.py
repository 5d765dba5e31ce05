from __future__ import annotations

from pathlib import Path

import pytest

from sternpost_operator.cluster.local.object_store import ObjectStore
from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.cluster.local.pod_spec import WORKING_DIR_ANNOTATION
from sternpost_operator.local_run.prepare import Prepared, localize, prepare
from sternpost_operator.local_run.state import Start, StateDirectory, StateError
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import CurrentAttempt, Phase, TrainingJobStatus


class Place:
    """A state directory, and what was said about it."""

    def __init__(self, root: Path) -> None:
        self.state = StateDirectory(root)
        self.paths = LocalPaths(root)
        self.said: list[str] = []

    def prepare(self, job: TrainingJob, *, fresh: bool = False, keep: bool = False) -> Prepared:
        local = localize(job, Path("/manifests"), self.state.root)
        with self.state.hold():
            try:
                return prepare(local, self.state, self.paths, fresh=fresh, keep=keep, say=self.said.append)
            finally:
                self.paths.memory_dir.rmdir() if self.paths.memory_dir.exists() else None

    def leave(self, phase: Phase) -> None:
        """As a run leaves it that came to this phase."""
        store = ObjectStore(self.paths.objects)
        job = store.get_job("gpt")
        assert job is not None
        status = TrainingJobStatus(phase=phase, attempt=CurrentAttempt(number=2, id="2-a", last_step=30))
        store.put_job(job.model_copy(update={"status": status}))
        (self.paths.objects / "pods" / "gpt-0").mkdir(parents=True)
        (self.state.root / "checkpoints").mkdir(exist_ok=True)
        store.put("nodes", "node-0", {})
        self.state.progress.write_text("{}")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "state")


def test_localize(job: TrainingJob, tmp_path: Path) -> None:
    strange = job.metadata.model_copy(update={"uid": "from-a-file", "resource_version": "7"})
    local = localize(job.model_copy(update={"metadata": strange}), tmp_path / "jobs", tmp_path / "state")
    assert local.spec.checkpoint is not None
    assert local.spec.checkpoint.storage == f"file://{tmp_path}/state/checkpoints"
    assert local.metadata.annotations[WORKING_DIR_ANNOTATION] == str(tmp_path / "jobs")
    assert (local.metadata.uid, local.metadata.resource_version) == ("", None)


def test_a_first_run_is_fresh(place: Place, job: TrainingJob) -> None:
    prepared = place.prepare(job)
    assert prepared.start is Start.FRESH
    stored = ObjectStore(place.paths.objects).get_job("gpt")
    assert stored is not None
    assert stored.metadata.uid == prepared.record.uid == prepared.job.metadata.uid


def test_an_unfinished_one_is_resumed_with_new_nodes(place: Place, job: TrainingJob) -> None:
    first = place.prepare(job)
    place.leave(Phase.RUNNING)
    second = place.prepare(job)
    assert second.start is Start.RESUME
    assert second.job.status.attempt.number == 2
    assert (second.record.uid, second.record.started_at, second.record.runs) == (
        first.record.uid,
        first.record.started_at,
        2,
    )
    assert list((place.paths.objects / "pods").iterdir()) == []
    assert list((place.paths.objects / "nodes").iterdir()) == []
    assert (place.state.root / "checkpoints").exists()
    assert not place.state.progress.exists()
    assert "step 30" in place.said[-1]


def test_a_finished_one_starts_over_without_its_checkpoints(place: Place, job: TrainingJob) -> None:
    first = place.prepare(job)
    place.leave(Phase.SUCCEEDED)
    second = place.prepare(job)
    assert second.start is Start.FRESH
    assert second.record.uid != first.record.uid
    assert not (place.state.root / "checkpoints").exists()


def test_keep_moves_it_aside(place: Place, job: TrainingJob) -> None:
    place.prepare(job)
    place.leave(Phase.SUCCEEDED)
    place.prepare(job, keep=True)
    assert (place.state.root.with_name("state.1") / "checkpoints").is_dir()
    assert "state.1" in place.said[-1]


def test_a_changed_manifest_is_refused_until_it_is_given_up(place: Place, job: TrainingJob) -> None:
    place.prepare(job)
    place.leave(Phase.RECOVERING)
    changed = job.model_copy(update={"spec": job.spec.model_copy(update={"spares": 0})})
    with pytest.raises(StateError, match="--fresh"):
        place.prepare(changed)
    assert (place.state.root / "checkpoints").exists()
    assert place.prepare(changed, fresh=True).start is Start.FRESH


def test_a_damaged_job_is_refused_until_it_is_given_up(place: Place, job: TrainingJob) -> None:
    place.prepare(job)
    (place.paths.objects / "trainingjobs" / "gpt.json").write_text("{")
    with pytest.raises(StateError, match="--fresh"):
        place.prepare(job)
    assert place.prepare(job, fresh=True).start is Start.FRESH


def test_a_run_that_died_between_record_and_job_starts_over(place: Place, job: TrainingJob) -> None:
    place.prepare(job)
    (place.paths.objects / "trainingjobs" / "gpt.json").unlink()
    assert place.prepare(job).start is Start.FRESH


def test_too_little_memory_loses_nothing(place: Place, job: TrainingJob) -> None:
    place.prepare(job)
    place.leave(Phase.RUNNING)
    assert job.spec.checkpoint is not None
    greedy = job.spec.checkpoint.model_copy(update={"shared_memory": "900Ti"})
    with pytest.raises(StateError, match="sharedMemory"):
        place.prepare(job.model_copy(update={"spec": job.spec.model_copy(update={"checkpoint": greedy})}), fresh=True)
    assert (place.state.root / "checkpoints").exists()
