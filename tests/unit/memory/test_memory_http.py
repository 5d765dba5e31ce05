from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sternpost_memory.http.cursors import encode
from sternpost_memory.store.sqlite import SqliteStore

INCIDENT = {
    "text": "node-3 was lost",
    "occurredAt": 1764000000.0,
    "source": "sternpost-operator",
    "entities": ["node/node-3", "job/gpt"],
    "attributes": {"cause": "NodeLost"},
}
SPACE = "/v1/spaces/a"
Problem = Callable[[Any, int], dict[str, Any]]


@pytest.fixture
def grown(api: Any, store: SqliteStore, drain: Callable[..., None]) -> Any:
    api.write(INCIDENT)
    drain(store, "a")
    api.write({**INCIDENT, "text": "node-3 is slow", "occurredAt": 1764000100.0, "attributes": {"cause": "SlowNode"}})
    drain(store, "a")
    return api


def test_write_and_wait(api: Any) -> None:
    answer = api.write(INCIDENT, {"text": "second"}, key="k")
    assert answer.status_code == 202
    assert answer.json()["seqs"] == [1, 2]
    job = answer.json()["job"]
    assert answer.headers["location"] == f"/v1/jobs/{job}"
    assert api("GET", f"/v1/jobs/{job}").json()["state"] == "pending"
    requested = api("POST", f"{SPACE}/consolidations")
    assert requested.status_code == 202
    api.worker.work()
    assert api("GET", f"/v1/jobs/{job}").json()["state"] == "done"
    assert api("GET", f"/v1/jobs/{requested.json()['job']}").json() == {
        "id": requested.json()["job"], "space": "a", "kind": "consolidation", "state": "done",
        "createdAt": api.now, "firstSeq": 1, "lastSeq": 2,
    }  # fmt: skip
    assert api("GET", f"{SPACE}/observations/1").json() == {**INCIDENT, "seq": 1, "receivedAt": api.now}


def test_consolidating_nothing_is_done_at_once(api: Any) -> None:
    job = api("POST", f"{SPACE}/consolidations").json()["job"]
    assert api("GET", f"/v1/jobs/{job}").json()["state"] == "done"


def test_the_same_key_is_written_once(api: Any, problem: Problem) -> None:
    first = api.write(INCIDENT, key="k")
    api.now += 100
    reordered = json.dumps({"observations": [dict(reversed(INCIDENT.items()))]}, indent=3).encode()
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    again = api("POST", f"{SPACE}/observations", headers=headers, content=reordered)
    assert again.status_code == 202
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert api.write(INCIDENT, key="other").json()["seqs"] == [2]
    assert "idempotency-key-reused" in problem(api.write({"text": "x"}, key="k"), 422)["type"]
    assert api.write({"text": "x"}).json()["seqs"] == [3]


def test_a_topic_document(grown: Any) -> None:
    answer = grown("GET", f"{SPACE}/topics/node/node-3")
    topic = answer.json()
    assert answer.headers["etag"] == '"2"'
    assert (topic["id"], topic["version"], topic["sources"]) == ("node/node-3", 2, 2)
    assert topic["summary"] == "2 incidents: NodeLost 1, SlowNode 1; last 2025-11-24T16:01:40Z"
    assert grown("GET", f"{SPACE}/topics/node%2Fnode-3").json() == topic
    markdown = grown("GET", f"{SPACE}/topics/node/node-3", headers={"Accept": "text/markdown"})
    assert markdown.headers["content-type"].startswith("text/markdown")
    assert markdown.text == topic["document"]
    unchanged = grown("GET", f"{SPACE}/topics/node/node-3", headers={"If-None-Match": '"1", "2"'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert "no topic" in grown("GET", f"{SPACE}/topics/node/node-9").json()["detail"]


def test_a_topics_history(grown: Any, problem: Problem) -> None:
    history = grown("GET", f"{SPACE}/topics/node/node-3/history?limit=1").json()
    assert [(item["version"], item["observations"]) for item in history["versions"]] == [(2, [2])]
    rest = grown("GET", f"{SPACE}/topics/node/node-3/history", params={"cursor": history["next"]}).json()
    assert [(item["version"], item["observations"]) for item in rest["versions"]] == [(1, [1])]
    assert rest["next"] is None
    problem(grown("GET", f"{SPACE}/topics/nothing/history"), 404)


def test_an_entity_called_history(api: Any, store: SqliteStore, drain: Callable[..., None]) -> None:
    api.write({"text": "x", "entities": ["job/history"]})
    drain(store, "a")
    assert api("GET", f"{SPACE}/topics/job/history").json()["id"] == "job/history"
    assert api("GET", f"{SPACE}/topics/job/history/history").json()["topic"] == "job/history"
    api.write({"text": "x", "entities": ["job"]})
    drain(store, "a")
    assert api("GET", f"{SPACE}/topics/job/history").json()["topic"] == "job"
    assert api("GET", f"{SPACE}/topics/job%2Fhistory").json()["id"] == "job/history"


def test_topics_in_pages(grown: Any) -> None:
    first = grown("GET", f"{SPACE}/topics?limit=1").json()
    assert [topic["id"] for topic in first["topics"]] == ["job/gpt"]
    assert "document" not in first["topics"][0]
    second = grown("GET", f"{SPACE}/topics", params={"limit": 1, "cursor": first["next"]}).json()
    assert [topic["id"] for topic in second["topics"]] == ["node/node-3"]
    assert second["next"] is None
    assert len(grown("GET", f"{SPACE}/topics?prefix=node/").json()["topics"]) == 1


def test_facts(grown: Any, problem: Problem) -> None:
    facts = f"{SPACE}/facts"
    (current,) = grown("GET", f"{facts}?entity=node/node-3").json()["facts"]
    assert (current["value"], current["seq"], current["validTo"]) == ("SlowNode", 2, None)
    (then,) = grown("GET", f"{facts}?entity=node/node-3&attribute=cause&at=1764000050").json()["facts"]
    assert (then["value"], then["validTo"], then["supersededBy"]) == ("NodeLost", 1764000100.0, current["id"])
    first = grown("GET", f"{facts}?history=true&limit=1").json()
    second = grown("GET", facts, params={"history": True, "limit": 1, "cursor": first["next"]}).json()
    assert first["facts"] + second["facts"] == [then, current]
    assert grown("GET", f"{facts}/{current['id']}").json() == {"fact": current, "history": [then, current]}
    problem(grown("GET", f"{facts}/9.9"), 404)
    problem(grown("GET", f"{facts}?history=true&at=1"), 422)


def test_search(grown: Any, problem: Problem) -> None:
    seq = grown.write({"text": "the switch behind node-3 reboots", "entities": ["node/node-3"]}).json()["seqs"][0]
    answer = grown("POST", f"{SPACE}/search", json={"query": "switch node-3", "minSeq": seq, "limit": 3}).json()
    assert answer["seq"] == seq
    assert len(answer["hits"]) == 3
    hit = answer["hits"][0]
    assert hit.pop("score") > answer["hits"][1]["score"]
    assert hit == {
        "kind": "observation", "text": "the switch behind node-3 reboots", "topic": None, "observations": [seq],
        "source": "", "occurredAt": grown.now, "attributes": {}, "superseded": False,
    }  # fmt: skip
    behind = grown("POST", f"{SPACE}/search", json={"query": "x", "min_seq": seq + 1})
    assert problem(behind, 409)["type"].endswith("behind")
    assert behind.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b'{"observations": []}', "body.observations"),
        (b'{"observations": [{"text": ""}]}', "body.observations.0.text"),
        (b'{"observations": [{"text": "\\ud800"}]}', "body.observations.0.text"),
        (b'{"observations": [{"text": "x", "nope": 1}]}', "body.observations.0.nope"),
        (b'{"observations": [{"text": "x", "\\udc00": 1}]}', "body.observations.0"),
        (b'{"observations": [{"text": "x", "occurredAt": NaN}]}', "body.observations.0.occurredAt"),
        (b'{"observations": [{"text": "x", "attributes": {"a": {}}}]}', "body.observations.0.attributes"),
        (b'{"observations": [' + b",".join([b'{"text": "x"}'] * 257) + b"]}", "body.observations"),
        (b'{"observations": [{"text": "' + b"x" * 16385 + b'"}]}', "body.observations.0.text"),
    ],
)
def test_bad_bodies(api: Any, problem: Problem, body: bytes, where: str) -> None:
    answer = api("POST", f"{SPACE}/observations", content=body, headers={"Content-Type": "application/json"})
    found = problem(answer, 422)
    assert found["errors"][0]["at"].startswith(where)
    assert len(answer.content) < 5000


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"observations": ' + b"9" * 5000 + b"}", b"\xff\xfe"])
def test_bodies_that_no_parser_takes(api: Any, body: bytes) -> None:
    answer = api("POST", f"{SPACE}/observations", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_that_is_too_large(api: Any, problem: Problem) -> None:
    large = b'{"observations": [' + b" " * 2 * 1024 * 1024 + b"]}"
    problem(api("POST", f"{SPACE}/observations", content=large), 413)

    async def chunks() -> Any:
        for _ in range(5):
            yield b" " * 512 * 1024

    headers = {"Content-Type": "application/json"}
    problem(api("POST", f"{SPACE}/observations", content=chunks(), headers=headers), 413)


def test_the_largest_batch_is_taken(api: Any) -> None:
    answer = api.write(*[{"text": "x" * 7000, "entities": ["e"]}] * 256)
    assert answer.json()["seqs"] == list(range(1, 257))


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/spaces/a", "/v1/spaces/a/nothing", "/v1/jobs/nope", "/v1/spaces/a/observations/7"]
)
def test_not_found_is_a_problem(api: Any, problem: Problem, path: str) -> None:
    problem(api("GET", path), 404)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/spaces/a/topics?cursor=!!", "/v1/spaces/a/topics?cursor=é", "/v1/spaces/a/topics?limit=0",
        f"/v1/spaces/a/topics?cursor={encode(7)}", f"/v1/spaces/a/facts?cursor={encode(['x'])}",
        f"/v1/spaces/a/facts?cursor={encode(['x', 'y', 0.0, 2**70])}",
        f"/v1/spaces/a/topics/x/history?cursor={encode(2**70)}",
        "/v1/spaces/a/facts?at=nan", "/v1/spaces/a/observations?after=-1", "/v1/spaces/a/observations/0",
    ],
)  # fmt: skip
def test_bad_parameters_are_problems(api: Any, problem: Problem, path: str) -> None:
    problem(api("GET", path), 422)


def test_other_methods_are_problems(api: Any, problem: Problem) -> None:
    problem(api("DELETE", "/v1/spaces/a/topics"), 405)


@pytest.mark.parametrize("space", ["-a", "a b", "a" * 64, ".."])
def test_bad_space_names(api: Any, space: str) -> None:
    api.token = "token-of-everything"
    assert api("GET", f"/v1/spaces/{space}/topics").status_code in {404, 422}


def test_a_full_store_is_507_and_nothing_is_lost(tmp_path: Path, make_api: Any, problem: Problem) -> None:
    store = SqliteStore(tmp_path / "small.db", max_bytes=1024 * 1024)
    api = make_api(store)
    seqs: list[int] = []
    while (answer := api.write({"text": "x" * 16000, "entities": ["e"]})).status_code == 202:
        seqs += answer.json()["seqs"]
    full = problem(answer, 507)
    assert "small.db" not in full["detail"]
    assert "StoreFull" in full["type"]
    assert api("GET", f"{SPACE}/observations").json()["observations"][-1]["seq"] == len(seqs)
    assert api("GET", "/readyz").status_code == 200
    with store._connections.write() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert api.write({"text": "x" * 16000}).json()["seqs"] == [len(seqs) + 1]
    assert 'sternpost_memory_store_errors_total{error="StoreFull"} 1.0' in api("GET", "/metrics").text
    store.close()


def test_metrics_name_no_space(make_api: Any, store: SqliteStore) -> None:
    api = make_api(store, token="token-of-everything")
    api("POST", "/v1/spaces/confidential/observations", json={"observations": [{"text": "x"}]})
    api("GET", "/v1/spaces/confidential/topics/hidden")
    page = api("GET", "/metrics").text
    assert "sternpost_memory_observations_total 1.0" in page
    assert 'route="/v1/spaces/{space}/observations",status="202"} 1.0' in page
    assert "confidential" not in page
    assert "hidden" not in page


def test_health(api: Any) -> None:
    api.token = None
    assert api("GET", "/healthz").json() == {"status": "ok"}
    assert api("GET", "/readyz").json() == {"status": "ok"}
    schema = api("GET", "/openapi.json").json()
    assert "/v1/spaces/{space}/observations" in schema["paths"]


def test_a_mistake_in_the_service_is_a_problem_too(api: Any, problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("what is in here stays in the log")

    monkeypatch.setattr(SqliteStore, "topics", broken)
    assert "stays in the log" not in problem(api("GET", f"{SPACE}/topics"), 500)["detail"]


def test_the_log_in_pages(api: Any) -> None:
    api.write(*[{"text": str(number)} for number in range(5)])
    page = api("GET", f"{SPACE}/observations?limit=3").json()
    assert ([item["seq"] for item in page["observations"]], page["next"]) == ([1, 2, 3], 3)
    page = api("GET", f"{SPACE}/observations?limit=3&after=3").json()
    assert ([item["seq"] for item in page["observations"]], page["next"]) == ([4, 5], None)
