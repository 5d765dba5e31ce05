"""Service account tokens, with an API server that answers from a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing

from sternpost_memory.errors import AuthorizationUnavailable, SettingsError
from sternpost_memory.http.app import create_app
from sternpost_memory.http.auth import FirstOf, TokenAuthorizer
from sternpost_memory.http.auth_token_review import REMEMBERED, REVIEWS_AT_ONCE, TokenReviewAuthorizer
from sternpost_memory.http.grants import Grants
from sternpost_memory.http.token_reviews import TokenReviews

AUDIENCE = "sternpost-memory"
Problem = Callable[[Any, int], dict[str, Any]]


class ApiServer:
    """A Kubernetes API server as far as TokenReview goes."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.own: list[str] = []
        self.fails: Exception | int | bytes | None = None
        self.knows_audiences = True
        self.paused: asyncio.Event | None = None
        self.arrived: asyncio.Event | None = None

    def pause(self, *, after: int) -> None:
        """Answer nothing until `paused` is set; `arrived` is set when `after` reviews have come."""
        self.paused, self.arrived, self._after = asyncio.Event(), asyncio.Event(), after

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        review = json.loads(request.content)
        self.asked.append(review["spec"]["token"])
        self.own.append(request.headers["authorization"])
        assert (request.method, request.url.path) == ("POST", "/apis/authentication.k8s.io/v1/tokenreviews")
        assert review["spec"]["audiences"] == [AUDIENCE]
        if self.paused is not None and self.arrived is not None:
            if len(self.asked) >= self._after:
                self.arrived.set()
            await self.paused.wait()
        match self.fails:
            case Exception():
                raise self.fails
            case int():
                return httpx.Response(self.fails, text=f"no: {self.asked[-1]}")
            case bytes():
                return httpx.Response(201, content=self.fails)
        return httpx.Response(201, json={**review, "status": self.status(review["spec"]["token"])})

    def status(self, token: str) -> dict[str, Any]:
        # NAMESPACE.NAME.AUDIENCE
        namespace, _, rest = token.partition(".")
        name, _, audience = rest.partition(".")
        if audience != AUDIENCE and self.knows_audiences:
            return {"authenticated": False, "error": "token audiences are invalid"}
        return {
            "authenticated": True,
            "user": {
                "username": f"system:serviceaccount:{namespace}:{name}",
                "uid": "1",
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
                "extra": {"x": ["y"]},
            },
            **({"audiences": [AUDIENCE]} if self.knows_audiences else {}),
        }


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reviews(tmp_path: Path, server: ApiServer) -> TokenReviews:
    (tmp_path / "token").write_text("own-token-1\n")
    return TokenReviews(
        AUDIENCE,
        environment={"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"},
        folder=tmp_path,
        transport=httpx.MockTransport(server),
    )


@pytest.fixture
def authorizer(reviews: TokenReviews, clock: Clock) -> TokenReviewAuthorizer:
    return TokenReviewAuthorizer(reviews, Grants({"*": ["{namespace}"]}), clock=clock)


@pytest.fixture
def cluster_api(api: Any, authorizer: TokenReviewAuthorizer) -> Any:
    api.app = create_app(api.app.state.service, authorizer)
    api.token = None
    return api


def ask(api: Any, token: str, space: str = "team-a") -> httpx.Response:
    answer: httpx.Response = api("GET", f"/v1/spaces/{space}/topics", headers={"Authorization": f"Bearer {token}"})
    return answer


def test_an_account_uses_the_space_of_its_namespace(cluster_api: Any, problem: Problem) -> None:
    assert ask(cluster_api, f"team-a.trainer.{AUDIENCE}").status_code == 200
    problem(ask(cluster_api, f"team-b.trainer.{AUDIENCE}"), 403)
    problem(ask(cluster_api, f"team-a.trainer.{AUDIENCE}", "team-b"), 403)
    problem(ask(cluster_api, "team-a.trainer.another-audience"), 401)
    problem(cluster_api("GET", "/v1/spaces/team-a/topics"), 401)
    for public in ("/metrics", "/healthz", "/readyz"):
        assert cluster_api("GET", public).status_code == 200


def test_a_server_that_knows_nothing_of_audiences_proves_nothing(
    cluster_api: Any, server: ApiServer, problem: Problem
) -> None:
    server.knows_audiences = False
    problem(ask(cluster_api, f"team-a.trainer.{AUDIENCE}"), 401)


def test_a_good_token_is_shown_once_a_minute_a_bad_one_more_often(
    cluster_api: Any, server: ApiServer, clock: Clock
) -> None:
    good, bad = f"team-a.trainer.{AUDIENCE}", "team-a.trainer.other"
    for at, asked in [(0, 2), (4, 2), (5, 3), (59, 4), (60, 5)]:
        clock.now = at
        assert ask(cluster_api, good).status_code == 200
        assert ask(cluster_api, bad).status_code == 401
        assert len(server.asked) == asked, at
    assert server.asked.count(good) == 2


@pytest.mark.parametrize(
    "failure",
    [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), 500, 503, 429, 401, 403, b"<html>", b'{"status": 1}'],
)
def test_a_server_that_does_not_say_is_no_refusal(
    cluster_api: Any, server: ApiServer, clock: Clock, problem: Problem, failure: Exception | int | bytes
) -> None:
    known, new = f"team-a.known.{AUDIENCE}", f"team-a.new.{AUDIENCE}"
    assert ask(cluster_api, known).status_code == 200
    server.fails = failure
    with structlog.testing.capture_logs() as logged:
        answer = ask(cluster_api, new)
    assert problem(answer, 503)["type"].endswith("unchecked")
    assert answer.headers["retry-after"] == "1"
    assert len(logged) == 1
    assert "new" not in str(logged[0]["why"]).split()
    assert new not in str(logged)
    # Whoever was known goes on, until that is too old.
    assert ask(cluster_api, known).status_code == 200
    clock.now = 61
    problem(ask(cluster_api, known), 503)
    server.fails = None
    assert ask(cluster_api, known).status_code == 200
    assert ask(cluster_api, new).status_code == 200


def test_its_own_token_is_read_again(reviews: TokenReviews, server: ApiServer, tmp_path: Path) -> None:
    async def both() -> None:
        await reviews.review("a.b.c")
        (tmp_path / "token").write_text("own-token-2")
        await reviews.review("a.b.c")
        (tmp_path / "token").unlink()
        with pytest.raises(AuthorizationUnavailable):
            await reviews.review("a.b.c")

    asyncio.run(both())
    assert server.own == ["Bearer own-token-1", "Bearer own-token-2"]


def test_requests_with_one_token_share_one_review(authorizer: TokenReviewAuthorizer, server: ApiServer) -> None:
    async def many() -> None:
        server.pause(after=1)
        header = f"Bearer team-a.trainer.{AUDIENCE}"
        waiting = [asyncio.create_task(authorizer.grant(header)) for _ in range(20)]
        assert server.arrived
        await server.arrived.wait()
        # One that is given up does not end it for the others.
        waiting.pop(0).cancel()
        assert server.paused
        server.paused.set()
        grants = await asyncio.gather(*waiting)
        assert all(grant and grant.allows("team-a") for grant in grants)

    asyncio.run(many())
    assert len(server.asked) == 1


def test_made_up_tokens_keep_the_server_busy_within_bounds(
    authorizer: TokenReviewAuthorizer, server: ApiServer
) -> None:
    async def flood() -> None:
        good = f"Bearer team-a.trainer.{AUDIENCE}"
        assert await authorizer.grant(good)
        server.pause(after=1 + REVIEWS_AT_ONCE)
        waiting = [asyncio.create_task(authorizer.grant(f"Bearer made.up.{n}")) for n in range(REVIEWS_AT_ONCE)]
        assert server.arrived
        await server.arrived.wait()
        with pytest.raises(AuthorizationUnavailable):
            await authorizer.grant("Bearer one.too.many")
        assert await authorizer.grant(good)
        assert server.paused
        server.paused.set()
        assert await asyncio.gather(*waiting) == [None] * REVIEWS_AT_ONCE
        for number in range(REMEMBERED + 10):
            await authorizer.grant(f"Bearer made-up.again.{number}")
        assert len(authorizer._refused._verdicts) == REMEMBERED
        asked = len(server.asked)
        assert await authorizer.grant(good)
        assert len(server.asked) == asked

    asyncio.run(flood())


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic x.y.z", "Bearer é", "Bearer " + "x" * 20000])
def test_what_is_no_token_is_not_shown_to_the_server(
    authorizer: TokenReviewAuthorizer, server: ApiServer, header: str
) -> None:
    assert asyncio.run(authorizer.grant(header)) is None
    assert server.asked == []


def test_static_tokens_beside_service_accounts(authorizer: TokenReviewAuthorizer, server: ApiServer) -> None:
    both = FirstOf([TokenAuthorizer({"static-token": frozenset({"s"})}), authorizer])
    static = asyncio.run(both.grant("Bearer static-token"))
    assert static
    assert static.spaces == {"s"}
    assert server.asked == []
    account = asyncio.run(both.grant(f"Bearer team-a.trainer.{AUDIENCE}"))
    assert account
    assert account.spaces == {"team-a"}
    assert asyncio.run(both.grant("Bearer neither")) is None


def test_it_needs_a_pod(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"this is no Pod; give --token-file"):
        TokenReviews(AUDIENCE, environment={})
    with pytest.raises(SettingsError, match="own token"):
        TokenReviews(AUDIENCE, environment={"KUBERNETES_SERVICE_HOST": "::1"}, folder=tmp_path)
