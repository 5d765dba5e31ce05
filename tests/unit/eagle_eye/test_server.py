"""The HTTP interface, without a network."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from sternpost_eagle_eye.attempt import Attempt
from sternpost_eagle_eye.control_plane.attempt_document import parse_attempt
from sternpost_eagle_eye.sidecar.own_metrics import OwnMetrics
from sternpost_eagle_eye.sidecar.server import make_app
from sternpost_eagle_eye.sidecar.token import TokenFile
from sternpost_eagle_eye.vector import MAX_VECTOR_BYTES, Vector

TOKEN = {"Authorization": "Bearer s3cret"}


class Fixture:
    def __init__(self, folder, attempt, make_court):
        (folder / "attempts").mkdir()
        metrics = OwnMetrics()
        self.now = 0.0
        self.folder = folder
        self.court = make_court(folder, metrics, lambda: self.now, time.time)
        self.court.convene(Attempt.model_validate(attempt))
        self.app = make_app(self.court, TokenFile(folder / "token"), metrics)

    def ask(self, method, path, **more):
        async def send():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://worker-0") as client:
                return await client.request(method, path, **more)

        return asyncio.run(send())

    def push(self, headers=TOKEN, content=None, **fields):
        values = {"attempt": "3-9f2c1a00", "pod_uid": "uid-1", "boot": "b", "sequence": 1} | fields
        return self.ask("POST", "/v1/vectors", headers=headers, content=content or Vector(**values).to_json())


@pytest.fixture
def served(tmp_path, make_attempt, make_court):
    return Fixture(tmp_path, make_attempt(4), make_court)


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer"}, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}]
)
def test_without_the_token_nothing_is_told(served, headers):
    for response in (served.push(headers=headers), served.ask("GET", "/v1/progress", headers=headers)):
        assert response.status_code == 401
        assert response.headers["content-type"] == "application/problem+json"
        assert "s3cret" not in response.text


def test_no_token_file_admits_nobody(served, tmp_path):
    (tmp_path / "token").write_text("")
    assert served.push(headers={"Authorization": "Bearer "}).status_code == 401
    (tmp_path / "token").unlink()
    assert served.push().status_code == 401


def test_a_vector_and_then_progress(served):
    assert served.push().status_code == 204
    report = served.ask("GET", "/v1/progress", headers=TOKEN).json()
    assert report["attempt"] == "3-9f2c1a00"
    assert [worker["pod"] for worker in report["workers"]] == ["gpt-1"]


def test_stale_and_strange_vectors(served):
    response = served.push(attempt="2-old")
    assert (response.status_code, response.json()["attempt"]) == (409, "3-9f2c1a00")
    assert served.push(pod_uid="stranger").status_code == 409
    assert served.push(content=b"x" * (MAX_VECTOR_BYTES + 1)).status_code == 413
    for content in (b"{}", b"[]", b"\xff", b"[" * 50_000, b'{"attempt": 1}'):
        assert served.push(content=content).status_code == 422
    page = served.ask("GET", "/metrics").text
    assert 'sternpost_eagle_eye_vectors_total{outcome="refused"} 6.0' in page
    assert 'sternpost_eagle_eye_vectors_total{outcome="stale"} 2.0' in page


def test_only_worker_0_of_a_running_attempt_has_progress(served, make_attempt):
    served.court.convene(Attempt.model_validate(make_attempt(number=4, action="hold")))
    assert served.ask("GET", "/v1/progress", headers=TOKEN).status_code == 404
    assert served.push(attempt="4-9f2c1a00").status_code == 409
    assert served.ask("GET", "/healthz").text == "ok\n"
    assert served.ask("GET", "/nothing").json()["status"] == 404
    assert served.ask("DELETE", "/v1/progress").status_code == 405


def test_other_spares_in_the_same_run_change_nothing_else(served, make_attempt):
    served.push()
    served.court.convene(Attempt.model_validate(make_attempt(4, spares=1)))
    assert served.push(pod_uid="uid-4").status_code == 204
    report = served.ask("GET", "/v1/progress", headers=TOKEN).json()
    assert [worker.get("index") for worker in report["workers"]] == [1, None]


def test_findings_of_an_attempt_that_is_over_are_not_written(served, make_attempt_bytes):
    path = served.folder / "attempts" / "gpt.json"

    def silence():
        for uid in ("uid-0", "uid-1", "uid-2"):
            for sequence in range(40):
                served.now += 0.5
                served.push(pod_uid=uid, sequence=sequence)
        asyncio.run(served.court.sit())
        return sorted(path.name for path in served.folder.glob("anomalies/gpt/*"))

    path.write_bytes(make_attempt_bytes(4, number=4))
    assert silence() == []
    document = parse_attempt(make_attempt_bytes(4), "uid-job")
    path.write_bytes(document.content)
    served.now += 4
    asyncio.run(served.court.sit())
    assert [path.name for path in served.folder.glob("anomalies/gpt/*")] != []
