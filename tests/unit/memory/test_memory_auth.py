from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sternpost_memory.errors import SettingsError
from sternpost_memory.http.app import create_app
from sternpost_memory.http.auth import OpenAuthorizer, is_loopback, read_tokens
from sternpost_memory.store.sqlite import SqliteStore

Problem = Callable[[Any, int], dict[str, Any]]


@pytest.mark.parametrize("token", [None, "wrong", "", "token-of-space-a "[:-2], "é"])
def test_denied_by_default(api: Any, problem: Problem, token: str | None) -> None:
    api.token = None
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    for method, path in [
        ("GET", "/v1/spaces/a/topics"),
        ("GET", "/v1/jobs/x"),
        ("POST", "/v1/spaces/a/search"),
        ("GET", "/nothing"),
    ]:
        answer = api(method, path, headers=dict(headers))
        problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


def test_other_schemes_are_refused(api: Any, problem: Problem) -> None:
    api.token = None
    problem(api("GET", "/v1/spaces/a/topics", headers={"Authorization": "Basic token-of-space-a"}), 401)
    assert api("GET", "/v1/spaces/a/topics", headers={"Authorization": "bearer token-of-space-a"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/spaces/b/topics", "/v1/spaces/b", "/v1/spaces", "/v1/spaces/", "/v1/spaces/*/topics", "/v1/spaces/A/topics",
        "/v1/spaces/b%2F..%2Fa/topics", "/v1/spaces/%62/topics",
    ],
)  # fmt: skip
def test_a_token_is_bound_to_its_spaces(api: Any, problem: Problem, path: str) -> None:
    problem(api("GET", path), 403)


def test_anothers_job_does_not_exist(api: Any, problem: Problem) -> None:
    api.token = "token-of-everything"
    job = api("POST", "/v1/spaces/b/observations", json={"observations": [{"text": "x"}]}).json()["job"]
    assert api("GET", f"/v1/jobs/{job}").status_code == 200
    api.token = "token-of-space-a"
    problem(api("GET", f"/v1/jobs/{job}"), 404)


def test_without_tokens_only_this_machine(api: Any, store: SqliteStore, problem: Problem) -> None:
    api.app = create_app(api.app.state.service, OpenAuthorizer())
    for host in ("localhost:80", "127.0.0.1", "[::1]:8765"):
        assert api("GET", "/v1/spaces/any/topics", headers={"Host": host}).status_code == 200
    problem(api("GET", "/v1/spaces/any/topics", headers={"Host": "attacker.example"}), 403)


def test_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "example.com", "", "127.0.0.1.example"]))  # noqa: S104 - not bound


def test_a_token_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"long-enough-1": ["a", "b"], "long-enough-2": ["*"]}))
    tokens = read_tokens(path)
    grant = asyncio.run(tokens.grant("Bearer long-enough-1"))
    assert grant
    assert [grant.allows(space) for space in ("a", "b", "c")] == [True, True, False]
    everything = asyncio.run(tokens.grant("Bearer long-enough-2"))
    assert everything
    assert everything.allows("c")
    assert asyncio.run(tokens.grant("Bearer long-enough-3")) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must hold an object"),
        ("{}", "must hold an object"),
        ('{"hunter": ["a"]}', "shorter than 8"),
        ('{"hunter-22": "a"}', "must be a list"),
        ('{"hunter-22": ["a b"]}', "cannot be one"),
        ('{"hunter-22": [1]}', "cannot be one"),
        (" " * 2_000_000, "more than 1 MiB"),
    ],
)
def test_bad_token_files(tmp_path_factory: pytest.TempPathFactory, content: str | None, message: str) -> None:
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=message) as caught:
        read_tokens(path)
    assert "hunter" not in str(caught.value)
    assert str(path) in str(caught.value)
