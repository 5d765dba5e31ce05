"""What `helm test` runs, against a server that answers as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helm_chart import CHART, load_script

LEASE = "/apis/coordination.k8s.io/v1/namespaces/system/leases/sternpost-operator"
RESOURCES = "/apis/sternpost.dev/v1alpha1"
SPACE = "/v1/spaces/sternpost-test"


class Server:
    """Answers from a table, and remembers what it was told."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.told: list[Any] = []
        self.tokens: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.told.append(body)
                self._answer()

            def _answer(self) -> None:
                outer.tokens.append(self.headers.get("Authorization"))
                status, content = outer.answers.get(self.path, (404, "nothing here"))
                data = (content if isinstance(content, str) else json.dumps(content)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return load_script(CHART / "files" / "check.py")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def token(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text("secret\n")
    return str(path)


def lease(age: timedelta, holder: str = "one") -> dict[str, Any]:
    return {
        "spec": {"holderIdentity": holder, "renewTime": (datetime.now(UTC) - age).isoformat().replace("+00:00", "Z")}
    }


def test_all_kinds_must_be_served(check: ModuleType, server: Server, token: str) -> None:
    server.answers[RESOURCES] = 200, {"resources": [{"kind": "TrainingJob"}, {"kind": "Attempt"}]}
    with pytest.raises(check.CheckError, match="does not serve Anomaly"):
        check.check_resources(server.url, token, "")
    server.answers[RESOURCES] = 200, {"resources": [{"kind": kind} for kind in check.KINDS]}
    check.check_resources(server.url, token, "")
    assert server.tokens == ["Bearer secret"] * 2


def test_an_operator_that_is_not_ready(check: ModuleType, server: Server) -> None:
    server.answers["/readyz"] = 503, "no answer from the API server"
    with pytest.raises(check.CheckError, match="503 no answer from the API server"):
        check.check_operator(server.url)
    server.answers["/readyz"] = 200, "ok"
    check.check_operator(server.url)


def test_somebody_must_lead_just_now(check: ModuleType, server: Server, token: str) -> None:
    server.answers[LEASE] = 200, lease(timedelta(seconds=1))
    assert check.check_leader(server.url, "system", token, "") == "one leads"
    server.answers[LEASE] = 200, lease(timedelta(hours=1))
    with pytest.raises(check.CheckError, match="has not renewed"):
        check.check_leader(server.url, "system", token, "")
    server.answers[LEASE] = 200, lease(timedelta(0), holder="")
    with pytest.raises(check.CheckError, match="no operator leads"):
        check.check_leader(server.url, "system", token, "")


def test_memory_finds_what_it_was_told(check: ModuleType, server: Server, token: str) -> None:
    server.answers[f"{SPACE}/observations"] = 202, {"job": "1", "seqs": [1]}
    server.answers[f"{SPACE}/search"] = 200, {"hits": []}
    with pytest.raises(check.CheckError, match="does not find it"):
        check.check_memory(server.url, token)
    (told, asked) = server.told
    assert asked["query"] in told["observations"][0]["text"]


def test_a_service_that_is_away_and_one_that_answers_no_json(check: ModuleType, server: Server) -> None:
    server.answers["/text"] = 200, "plain"
    assert check.ask(f"{server.url}/text") == "plain"
    server.close()
    with pytest.raises(check.CheckError):
        check.ask(f"{server.url}/text")


def test_a_check_is_tried_until_it_holds(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "PAUSE_SECONDS", 0)
    left = [check.CheckError("not yet"), check.CheckError("not yet")]

    def late() -> str:
        if left:
            raise left.pop()
        return "well"

    assert check.until(late, 60) == "well"


def test_a_check_that_never_holds_tells_why(check: ModuleType) -> None:
    def never() -> str:
        raise check.CheckError("the reason")

    with pytest.raises(check.CheckError, match="the reason"):
        check.until(never, 0)


def test_memory_is_asked_only_where_there_is_one(check: ModuleType) -> None:
    environment = {
        "KUBERNETES_SERVICE_HOST": "fd00::1",
        "KUBERNETES_SERVICE_PORT": "443",
        "OPERATOR_URL": "http://operator",
        "NAMESPACE": "system",
    }
    assert len(check.checks(environment)) == 3
    assert len(check.checks({**environment, "MEMORY_URL": "http://memory", "MEMORY_TOKEN_FILE": "/t"})) == 4
