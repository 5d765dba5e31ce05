"""launcher.json, also when it is torn."""

from __future__ import annotations

import json

import pytest

from sternpost_eagle_eye.collect.launcher import LauncherFile, parse_launcher

GOOD = {
    "pid": 71,
    "updatedAt": 1764000000.0,
    "attempt": "3-9f2c1a00",
    "attemptNumber": 3,
    "worker": 2,
    "state": "running",
    "message": "",
    "terminatedAt": None,
    "startedAt": 1764000000.5,
    "ranks": [{"rank": 2, "localRank": 0, "pid": 80, "exitCode": None, "exitedAt": None}],
    "preflight": [{"check": "shared-memory", "ok": True, "detail": "1024 MiB free of 1024 MiB"}],
}


def test_polls_and_keeps_what_it_had(tmp_path):
    path = tmp_path / "launcher.json"
    file = LauncherFile(tmp_path)
    assert not file.poll()
    path.write_text(json.dumps(GOOD))
    assert file.poll()
    assert file.current.ranks[0].pid == 80
    path.write_text(json.dumps(GOOD | {"updatedAt": 1764000001.25}))
    assert not file.poll()  # only the time of writing changed
    assert file.current.updated_at == 1764000001.25
    path.write_text(json.dumps(GOOD)[:50])
    assert not file.poll()
    assert file.current.state == "running"
    assert file.dropped == 1
    path.write_text(json.dumps(GOOD | {"state": "failed", "message": "x" * 10_000}))
    assert file.poll()
    assert (file.current.state, len(file.current.message)) == ("failed", 1024)


def test_a_launcher_without_an_attempt():
    waiting = {"pid": 1, "updatedAt": 5.0, "attempt": None, "attemptNumber": None, "state": "waiting", "ranks": []}
    assert parse_launcher(json.dumps(waiting).encode()).attempt == ""


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"[" * 100_000, b'{"updatedAt": "NaN"}', b'{"updatedAt": 1, "state": "odd"}', b"\xff"],
)
def test_garbage_is_one_error(content):
    with pytest.raises(ValueError, match=r"."):
        parse_launcher(content)
