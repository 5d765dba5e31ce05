from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from sternpost_operator.cluster.base import ConflictError
from sternpost_operator.cluster.local.object_store import DamagedObjectError, ObjectStore
from sternpost_operator.resources.base import ObjectMeta
from sternpost_operator.resources.training_job import TrainingJob, TrainingJobSpec

TEMPLATE = {"spec": {"containers": [{"name": "trainer", "command": ["true"]}]}}


def job(name: str = "gpt", workers: int = 1) -> TrainingJob:
    return TrainingJob(metadata=ObjectMeta(name=name), spec=TrainingJobSpec(workers=workers, template=TEMPLATE))


def resized(stored: TrainingJob, workers: int) -> TrainingJob:
    return stored.model_copy(update={"spec": stored.spec.model_copy(update={"workers": workers})})


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


def test_job_is_created_once_and_replaced_by_version(store: ObjectStore) -> None:
    first = store.put_job(job())
    assert first.metadata.uid
    assert first.metadata.creation_timestamp is not None
    assert store.get_job("gpt") == first
    with pytest.raises(ConflictError, match="exists already"):
        store.put_job(job())
    second = store.put_job(resized(first, 2))
    assert (second.metadata.generation, second.metadata.uid) == (2, first.metadata.uid)
    with pytest.raises(ConflictError, match="is version 2"):
        store.put_job(resized(first, 3))
    status = second.model_copy(update={"status": second.status.model_copy(update={"restarts": 1})})
    assert store.put_job(status).metadata.generation == 2


def test_version_of_a_deleted_job_fits_no_later_one(store: ObjectStore) -> None:
    first = store.put_job(job())
    assert store.delete_job("gpt")
    with pytest.raises(ConflictError, match="is gone"):
        store.put_job(first)
    store.put_job(job())
    with pytest.raises(ConflictError):
        store.put_job(first)


def test_of_many_writers_of_one_version_one_wins(store: ObjectStore) -> None:
    stored = store.put_job(job())
    barrier = threading.Barrier(8)
    won: list[int] = []

    def write(workers: int) -> None:
        barrier.wait()
        try:
            store.put_job(resized(stored, workers))
        except ConflictError:
            return
        won.append(workers)

    threads = [threading.Thread(target=write, args=(i + 2,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    found = store.get_job("gpt")
    assert found is not None
    assert found.spec.workers == won[0]


_COUNT = """
import pathlib, sys
from sternpost_operator.cluster.base import ConflictError
from sternpost_operator.cluster.local.object_store import ObjectStore
store = ObjectStore(pathlib.Path(sys.argv[1]))
done = 0
while done < 6:
    stored = store.get_job("gpt")
    status = stored.status.model_copy(update={"restarts": stored.status.restarts + 1})
    try:
        store.put_job(stored.model_copy(update={"status": status}))
    except ConflictError:
        continue
    done += 1
"""


def test_no_update_of_several_processes_is_lost(store: ObjectStore) -> None:
    store.put_job(job())
    command = [sys.executable, "-c", _COUNT, str(store.objects)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    found = store.get_job("gpt")
    assert found is not None
    assert (found.status.restarts, found.metadata.resource_version) == (12, "13")


class Versions(RuleBasedStateMachine):
    """Against a dictionary: a write succeeds exactly with the version that is stored."""

    read = Bundle("read")

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.store = ObjectStore(Path(self.folder.name))
        self.model: dict[str, TrainingJob] = {}
        self.highest: dict[str, int] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(target=read, name=st.sampled_from(["a", "b"]))
    def create(self, name: str) -> TrainingJob:
        try:
            written = self.store.put_job(job(name))
        except ConflictError:
            assert name in self.model
            return self.model[name]
        assert name not in self.model
        self.model[name] = written
        return written

    @rule(target=read, old=read, workers=st.integers(1, 5))
    def replace(self, old: TrainingJob, workers: int) -> TrainingJob:
        current = self.model.get(old.metadata.name)
        same = current is not None and current.metadata == old.metadata
        try:
            written = self.store.put_job(resized(old, workers))
        except ConflictError:
            assert not same
            return old
        assert same
        assert int(written.metadata.resource_version or 0) == int(old.metadata.resource_version or 0) + 1
        self.model[old.metadata.name] = written
        return written

    @rule(name=st.sampled_from(["a", "b"]))
    def delete(self, name: str) -> None:
        assert self.store.delete_job(name) == (self.model.pop(name, None) is not None)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "model"):
            assert {found.metadata.name: found for found in self.store.list_jobs()} == self.model


TestVersions = Versions.TestCase
TestVersions.settings = settings(deadline=None, max_examples=15, stateful_step_count=15, derandomize=True)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"spec": NaN}', b"\xff" * 10, b"[" * 100_000, b" " * 5_000_000]
)
def test_garbage_is_never_taken_for_a_job_that_is_gone(store: ObjectStore, content: bytes) -> None:
    (store.objects / "trainingjobs" / "gpt.json").write_bytes(content)
    with pytest.raises(DamagedObjectError, match=r"gpt\.json"):
        store.get_job("gpt")
    assert store.list_jobs() == []
    (store.objects / "nodes" / "node-1.json").write_bytes(content)
    (store.objects / "nodes" / "node-2.json").write_text(json.dumps({"name": "node-2"}))
    assert "node-2" in store.list_all("nodes")
    (store.objects / "anomalies" / "gpt").mkdir()
    (store.objects / "anomalies" / "gpt" / "x.json").write_bytes(content)
    assert store.anomalies("gpt") in ([], [{}])


def test_secrets_are_private_and_created_once(store: ObjectStore) -> None:
    assert store.create("secrets", "gpt-token", {"data": {}}, secret=True)
    assert not store.create("secrets", "gpt-token", {"data": {"other": ""}}, secret=True)
    path = store.objects / "secrets" / "gpt-token.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert store.get("secrets", "gpt-token") == {"data": {}}
    assert [found.name for found in path.parent.iterdir()] == ["gpt-token.json"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", "a/b", "..", "X", "a\0"])
def test_names_stay_in_the_folder(store: ObjectStore, name: str) -> None:
    for call in (lambda: store.get("nodes", name), lambda: store.put("nodes", name, {}), lambda: store.pod(name)):
        with pytest.raises(ValueError, match="not a name"):
            call()


def test_pods_are_created_once_and_removed_by_uid(store: ObjectStore) -> None:
    manifest = {"metadata": {"name": "gpt-0", "uid": "a"}, "spec": {}}
    assert store.create_pod(manifest)
    assert not store.create_pod({"metadata": {"name": "gpt-0", "uid": "b"}, "spec": {}})
    assert store.pods() == [manifest]
    assert not store.remove_pod("gpt-0", "b")
    assert store.remove_pod("gpt-0", "a")
    assert not store.write_pod(manifest)
    assert store.pods() == []
    assert list((store.objects / "pods").iterdir()) == []


def test_status_of_an_earlier_pod_of_the_name_does_not_count(store: ObjectStore) -> None:
    store.create_pod({"metadata": {"name": "gpt-0", "uid": "a"}, "spec": {}})
    store.write_pod_status("gpt-0", {"uid": "earlier", "status": {"phase": "Running"}})
    assert store.pod_status("gpt-0", "a") is None
    store.write_pod_status("not-there", {"uid": "x", "status": {}})


def test_damaged_pod_makes_room_for_a_new_one(store: ObjectStore) -> None:
    (store.objects / "pods" / "gpt-0").mkdir()
    (store.objects / "pods" / "gpt-0" / "pod.json").write_text('{"metadata"')
    assert store.pods() == []
    assert store.create_pod({"metadata": {"name": "gpt-0", "uid": "a"}, "spec": {}})


def test_half_written_files_are_swept_away(store: ObjectStore) -> None:
    import os

    old = store.objects / "nodes" / ".node-1.json.1-abc.tmp"
    new = store.objects / "nodes" / ".node-1.json.2-abc.tmp"
    folder = store.objects / "pods" / ".new-gpt-0-abc"
    folder.mkdir()
    for path in (old, new):
        path.write_text("{")
    for path in (old, folder):
        os.utime(path, (1, 1))
    store.sweep()
    assert not old.exists()
    assert not folder.exists()
    assert new.exists()
