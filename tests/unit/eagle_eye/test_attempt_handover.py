"""The Attempt on its way to the launcher."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_eagle_eye.config import ConfigError
from sternpost_eagle_eye.control_plane.attempt_document import parse_attempt
from sternpost_eagle_eye.control_plane.folder import FolderControlPlane, folder_of
from sternpost_eagle_eye.report import Anomaly
from sternpost_eagle_eye.sidecar.attempt_handover import AttemptHandover


@pytest.fixture
def document(make_attempt_bytes):
    return lambda **more: parse_attempt(make_attempt_bytes(**more), more.get("job_uid", "uid-job"))


def test_newer_ones_are_written_whole_and_older_ones_never(tmp_path, document):
    handover = AttemptHandover(tmp_path, "uid-job")
    assert handover.standing() is None
    assert handover.offer(document(number=2, action="hold"))
    assert handover.offer(document(number=2, issued_at=1_764_000_009.0))
    assert not handover.offer(document(number=2, action="hold"))
    assert not handover.offer(document(number=1, issued_at=1_764_000_100.0))
    standing = json.loads((tmp_path / "attempt.json").read_bytes())
    assert (standing["spec"]["number"], standing["spec"]["action"]) == (2, "run")
    assert standing["spec"]["aNewerField"] == {"kept": True}
    # After a restart of the sidecar just the same.
    assert not AttemptHandover(tmp_path, "uid-job").offer(document(number=1))
    assert AttemptHandover(tmp_path, "uid-job").offer(document(number=3))
    assert [path.name for path in tmp_path.iterdir()] == ["attempt.json"]


def test_what_an_earlier_job_of_that_name_left_does_not_count(tmp_path, document):
    AttemptHandover(tmp_path, "old").offer(document(number=9, job_uid="old"))
    assert AttemptHandover(tmp_path, "uid-job").offer(document(number=1))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=12))
def test_whatever_the_order_the_newest_stands(tmp_path_factory, make_attempt_bytes, offers):
    folder = tmp_path_factory.mktemp("control")
    for number, second in offers:
        content = make_attempt_bytes(number=number, issued_at=1_764_000_000.0 + second)
        AttemptHandover(folder, "uid-job").offer(parse_attempt(content, "uid-job"))
    standing = AttemptHandover(folder, "uid-job").standing().attempt.spec
    assert (standing.number, standing.issued_at.timestamp() - 1_764_000_000.0) == max(offers)


def test_the_folder_yields_each_version_once_and_survives_garbage(tmp_path, make_attempt_bytes):
    path = tmp_path / "attempts" / "gpt.json"
    path.parent.mkdir()
    control = FolderControlPlane(tmp_path, "gpt", "uid-job", poll_seconds=0.01)

    async def scenario():
        found: asyncio.Queue[int] = asyncio.Queue()

        async def read():
            async for document in control.attempts():
                found.put_nowait(document.attempt.spec.number)

        reading = asyncio.create_task(read())
        path.write_bytes(make_attempt_bytes(number=1))
        first = await asyncio.wait_for(found.get(), 3)
        path.write_bytes(b'{"spec": {')
        await asyncio.sleep(0.05)
        path.write_bytes(make_attempt_bytes(number=7, job_uid="another"))
        await asyncio.sleep(0.05)
        path.write_bytes(make_attempt_bytes(number=2))
        second = await asyncio.wait_for(found.get(), 3)
        reading.cancel()
        return [first, second]

    assert asyncio.run(scenario()) == [1, 2]


def anomaly(first_seen):
    return Anomaly("3-a-slow-1", {"spec": {"firstSeen": first_seen, "lastSeen": first_seen}})


def test_an_anomaly_keeps_when_it_was_first_seen(tmp_path):
    control = FolderControlPlane(tmp_path, "gpt", "uid-job")
    path = tmp_path / "anomalies" / "gpt" / "3-a-slow-1.json"
    asyncio.run(control.write_anomaly(anomaly("2026-01-01T00:00:05.000Z")))
    asyncio.run(control.write_anomaly(anomaly("2026-01-01T00:00:09.000Z")))
    spec = json.loads(path.read_bytes())["spec"]
    assert spec == {"firstSeen": "2026-01-01T00:00:05.000Z", "lastSeen": "2026-01-01T00:00:09.000Z"}
    path.write_text("{")
    asyncio.run(control.write_anomaly(anomaly("2026-01-01T00:00:11.000Z")))
    assert json.loads(path.read_bytes())["spec"]["firstSeen"] == "2026-01-01T00:00:11.000Z"


@pytest.mark.parametrize("uri", ["http://x/y", "file://host/x", "file:x", "kubernetes:"])
def test_other_control_planes_are_named(uri):
    with pytest.raises(ConfigError, match="expected file:///absolute/path"):
        folder_of(uri)
