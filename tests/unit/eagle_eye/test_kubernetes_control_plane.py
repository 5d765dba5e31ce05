"""The Kubernetes control plane against a server that misbehaves in every way a real one may."""

from __future__ import annotations

import asyncio
import json

import pytest
from fake_api_server import Answer, Asked, CutError, FakeApiServer

from sternpost_eagle_eye.config import ConfigError, settings_from
from sternpost_eagle_eye.control_plane import kubernetes, kubernetes_api
from sternpost_eagle_eye.control_plane.kubernetes import KubernetesControlPlane
from sternpost_eagle_eye.control_plane.kubernetes_api import ApiAccess, access_of
from sternpost_eagle_eye.control_plane.kubernetes_watch import BackOff, LineSplitter, WatchError, parse_event
from sternpost_eagle_eye.report import Anomaly
from sternpost_eagle_eye.sidecar.service import control_plane_of

ATTEMPTS = "/apis/sternpost.dev/v1alpha1/namespaces/team/attempts"
ANOMALY = "/apis/sternpost.dev/v1alpha1/namespaces/team/anomalies/3-a-slow-1"
GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (99)"}


@pytest.fixture
def attempt(make_attempt):
    def make(number, version, **more):
        value = make_attempt(number=number, **more)
        value["metadata"] |= {"resourceVersion": str(version), "managedFields": [{"manager": "x" * 100}]}
        return value

    return make


def listed(*items, version=10):
    async def behave(asked: Asked, answer: Answer) -> None:
        assert "watch" not in asked.query
        await answer.whole(200, {"metadata": {"resourceVersion": str(version)}, "items": list(items)})

    return behave


def watched(*events, then="silence", after=None):
    """Sends the events; then stays silent, or ends, or cuts the connection."""

    async def behave(asked: Asked, answer: Answer) -> None:
        assert asked.query["watch"] == "1"
        if after is not None:
            assert asked.query["resourceVersion"] == str(after)
        await answer.stream()
        for event in events:
            if isinstance(event, bytes):
                await answer.chunk(event)
            else:
                await answer.event(*event)
        if then == "cut":
            raise CutError
        if then == "end":
            await answer.end()
        else:
            await answer.silence()

    return behave


def refused(status, content=b"no"):
    async def behave(_asked: Asked, answer: Answer) -> None:
        await answer.whole(status, content)

    return behave


async def cut(_asked, _answer):
    raise CutError


async def silent(_asked, answer):
    await answer.silence()


@pytest.fixture
def follow(tmp_path):
    """Numbers of the attempts that arrive, until there are `count`; and the requests that it took."""
    (tmp_path / "token").write_text("first\n")

    def run(count, *behaviours):
        async def scenario():
            server = FakeApiServer(*behaviours)
            async with server.running():
                control = control_plane(tmp_path, server.url)
                documents = []
                async with asyncio.timeout(20):
                    async for document in control.attempts():
                        documents.append(document)
                        if len(documents) == count:
                            break
                await control.aclose()
                return documents, server.asked

        return asyncio.run(scenario())

    return run


def control_plane(folder, url):
    access = ApiAccess(url, folder / "token", None)
    return KubernetesControlPlane(access, namespace="team", job="gpt", job_uid="uid-job", random_share=lambda: 0.0)


def numbers(documents):
    return [document.attempt.spec.number for document in documents]


def test_list_then_watch(follow, attempt):
    documents, asked = follow(
        3,
        listed(attempt(1, 8)),
        watched(("MODIFIED", attempt(2, 11)), ("SOMETHING", {}), ("ADDED", attempt(3, 12)), after=10),
    )
    assert numbers(documents) == [1, 2, 3]
    first, second = asked
    assert (first.method, first.path, first.query) == ("GET", ATTEMPTS, {"fieldSelector": "metadata.name=gpt"})
    assert first.headers["authorization"] == "Bearer first"
    assert second.query["allowWatchBookmarks"] == "true"
    assert second.query["fieldSelector"] == "metadata.name=gpt"
    assert 300 <= int(second.query["timeoutSeconds"]) <= 600
    # The launcher gets all of the object but the book-keeping of its fields.
    content = json.loads(documents[0].content)
    assert content["spec"]["aNewerField"] == {"kept": True}
    assert "managedFields" not in content["metadata"]


def test_a_watch_goes_on_where_it_ended(follow, attempt):
    bookmark = {"kind": "Attempt", "metadata": {"resourceVersion": "40"}}
    documents, _ = follow(
        3,
        listed(),
        watched(("ADDED", attempt(1, 11)), then="end", after=10),
        watched(("BOOKMARK", bookmark), then="cut", after=11),
        cut,  # the API server restarts
        refused(503),
        listed(attempt(2, 50), version=50),
        watched(("DELETED", attempt(2, 51)), then="end", after=50),
        watched(("ADDED", attempt(3, 52)), after=51),
    )
    assert numbers(documents) == [1, 2, 3]


def test_a_connection_that_broke_is_no_reason_to_list(follow, attempt):
    bookmark = {"kind": "Attempt", "metadata": {"resourceVersion": "40"}}
    documents, asked = follow(
        1, listed(), watched(("BOOKMARK", bookmark), then="cut"), cut, watched(("ADDED", attempt(1, 41)), after=40)
    )
    assert numbers(documents) == [1]
    assert ["watch" in request.query for request in asked] == [False, True, True, True]


@pytest.mark.parametrize("behaviour", [watched(("ERROR", GONE)), refused(410, GONE), refused(504)])
def test_a_version_that_is_gone_means_a_new_list(follow, attempt, behaviour):
    documents, asked = follow(2, listed(attempt(1, 8)), behaviour, listed(attempt(2, 99), version=99))
    assert numbers(documents) == [1, 2]
    assert [request.query.get("resourceVersion") for request in asked] == [None, "10", None]


@pytest.mark.parametrize(
    "garbage",
    [
        b"nonsense\n",
        b"\xff\xfe\n",
        b"[1]\n",
        b'{"type": "ADDED"}\n',
        b'{"type": "ADDED", "object": 3}\n',
        b'{"type": "ADDED", "object": {"metadata": {}}}\n',
        b'{"type": "ERROR", "object": null}\n',
        b"[" * 20_000 + b"\n",
    ],
)
def test_a_garbled_stream_is_left(follow, attempt, garbage):
    documents, _ = follow(1, listed(), watched(garbage), listed(attempt(1, 20), version=20))
    assert numbers(documents) == [1]


def test_what_is_no_attempt_is_passed_over(follow, attempt):
    broken, foreign = attempt(1, 11), attempt(1, 12, job_uid="another")
    del broken["spec"]["id"]
    documents, asked = follow(
        1,
        listed(7, {}, {"metadata": {"resourceVersion": "3"}}),
        watched(("ADDED", broken), ("ADDED", foreign), ("ADDED", attempt(2, 13))),
    )
    assert numbers(documents) == [2]
    assert len(asked) == 2


@pytest.mark.parametrize("answer", [b"", b"null", b"[]", b"{}", b'{"metadata": {"resourceVersion": 7}}', b"[" * 20_000])
def test_a_list_that_is_garbage_is_asked_for_again(follow, attempt, answer):
    documents, _ = follow(1, refused(200, answer), listed(attempt(1, 8)), watched())
    assert numbers(documents) == [1]


def test_oversized_objects_do_no_harm(follow, attempt, monkeypatch):
    monkeypatch.setattr(kubernetes, "MAX_ATTEMPT_BYTES", 10_000)
    huge = attempt(2, 11) | {"padding": "x" * 20_000}
    documents, _ = follow(
        2,
        listed(attempt(1, 8)),
        watched(("MODIFIED", huge)),
        listed(huge),
        watched(b"x" * 20_000),
        listed(attempt(3, 30)),
        watched(),
    )
    assert numbers(documents) == [1, 3]


def test_a_connection_that_is_half_open_is_found_out(follow, attempt, monkeypatch):
    monkeypatch.setattr(kubernetes_api, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(kubernetes_api, "REQUEST_SECONDS", 0.1)
    documents, asked = follow(
        2, silent, listed(attempt(1, 8)), watched(), silent, watched(("ADDED", attempt(2, 11)), after=10)
    )
    assert numbers(documents) == [1, 2]
    assert len(asked) == 5


def test_a_bookmark_comes_often_enough():
    assert kubernetes_api.SILENCE_SECONDS > 75  # a minute, and a quarter of jitter


def test_the_token_is_read_for_each_request(follow, attempt, tmp_path):
    async def expired(_asked, answer):
        (tmp_path / "token").write_text("second")
        await answer.whole(401, {"message": "Unauthorized"})

    documents, asked = follow(1, expired, listed(attempt(1, 8)))
    assert numbers(documents) == [1]
    assert [request.headers["authorization"] for request in asked] == ["Bearer first", "Bearer second"]


def test_a_missing_token_is_waited_for(tmp_path, attempt):
    async def scenario():
        server = FakeApiServer(listed(attempt(1, 8)))
        async with server.running():
            control = control_plane(tmp_path, server.url)
            with pytest.raises(OSError, match="token"):
                await control.current()
            (tmp_path / "token").write_text("\xe9")
            with pytest.raises(OSError, match="no service account token"):
                await control.current()
            assert server.asked == []
            found = asyncio.ensure_future(anext(control.attempts()))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            (tmp_path / "token").write_text("late")
            assert (await asyncio.wait_for(found, 10)).attempt.spec.number == 1
            await control.aclose()

    asyncio.run(scenario())


def ask(tmp_path, *behaviours, call):
    (tmp_path / "token").write_text("t")

    async def scenario():
        server = FakeApiServer(*behaviours)
        async with server.running():
            control = control_plane(tmp_path, server.url)
            try:
                return await call(control), server.asked
            finally:
                await control.aclose()

    return asyncio.run(scenario())


def test_the_attempt_of_now(tmp_path, attempt):
    async def current(control):
        return [await control.current() for _ in range(3)]

    answers = [refused(200, attempt(4, 9)), refused(404), refused(200, attempt(4, 9, job_uid="another"))]
    (found, none, foreign), asked = ask(tmp_path, *answers, call=current)
    assert (found.attempt.spec.number, none, foreign) == (4, None, None)
    assert (asked[0].path, asked[0].query) == (f"{ATTEMPTS}/gpt", {})


@pytest.mark.parametrize("behaviour", [refused(500), refused(200, b"{}"), refused(200, b"x"), cut, refused(301)])
def test_no_answer_is_an_oserror(tmp_path, behaviour):
    async def current(control):
        with pytest.raises(OSError, match=r"API server|resourceVersion"):
            await control.current()

    ask(tmp_path, behaviour, call=current)


def anomaly(first_seen):
    metadata = {"name": "3-a-slow-1", "namespace": "team", "labels": {"sternpost.dev/job": "gpt"}}
    manifest = {
        "apiVersion": "sternpost.dev/v1alpha1",
        "kind": "Anomaly",
        "metadata": metadata,
        "spec": {"job": "gpt", "firstSeen": first_seen, "lastSeen": first_seen},
    }
    return Anomaly("3-a-slow-1", manifest)


def test_an_anomaly_is_applied_and_keeps_when_it_was_first_seen(tmp_path):
    stored = {"spec": {"firstSeen": "2026-01-01T00:00:03.000Z"}}

    async def write(control):
        await control.write_anomaly(anomaly("2026-01-01T00:00:05.000Z"))
        await control.write_anomaly(anomaly("2026-01-01T00:00:09.000Z"))

    _, asked = ask(tmp_path, refused(200, stored), refused(200, {}), refused(200, {}), call=write)
    assert [(request.method, request.path) for request in asked] == [
        ("GET", ANOMALY),
        ("PATCH", ANOMALY),
        ("PATCH", ANOMALY),
    ]
    assert asked[1].query == {"fieldManager": "sternpost-eagle-eye", "force": "true"}
    assert asked[1].headers["content-type"] == "application/apply-patch+yaml"
    for request, last_seen in zip(asked[1:], ("05", "09"), strict=True):
        sent = json.loads(request.body)
        assert sent["spec"]["firstSeen"] == "2026-01-01T00:00:03.000Z"
        assert sent["spec"]["lastSeen"] == f"2026-01-01T00:00:{last_seen}.000Z"
        assert sent["metadata"]["ownerReferences"] == [
            {"apiVersion": "sternpost.dev/v1alpha1", "kind": "TrainingJob", "name": "gpt", "uid": "uid-job"}
        ]
        assert sent["metadata"]["labels"] == {"sternpost.dev/job": "gpt"}


@pytest.mark.parametrize("stored", [{}, {"spec": 3}, {"spec": {"firstSeen": 5}}, {"spec": {"firstSeen": "yesterday"}}])
def test_a_strange_anomaly_is_replaced(tmp_path, stored):
    async def write(control):
        await control.write_anomaly(anomaly("2026-01-01T00:00:05.000Z"))

    _, asked = ask(tmp_path, refused(200, stored), refused(200, {}), call=write)
    assert json.loads(asked[1].body)["spec"]["firstSeen"] == "2026-01-01T00:00:05.000Z"


def test_a_refusal_says_why(tmp_path):
    denied = {
        "kind": "Status",
        "message": "ValidatingAdmissionPolicy 'sternpost-anomalies' denied request: another job",
    }

    async def write(control):
        with pytest.raises(OSError, match="answered 422: ValidatingAdmissionPolicy"):
            await control.write_anomaly(anomaly("2026-01-01T00:00:05.000Z"))

    ask(tmp_path, refused(404), refused(422, denied), call=write)


def test_lines_come_whole_however_they_are_cut():
    content = b'{"a":1}\n\n{"b":2}\n{"c"'
    for size in range(1, len(content)):
        lines = LineSplitter(100)
        found = [line for at in range(0, len(content), size) for line in lines.feed(content[at : at + size])]
        assert found == [b'{"a":1}', b'{"b":2}']
        assert lines.feed(b":3}\n") == [b'{"c":3}']
    with pytest.raises(WatchError, match="more than 5 bytes"):
        LineSplitter(5).feed(b"123456")
    with pytest.raises(WatchError, match="more than 5 bytes"):
        LineSplitter(5).feed(b"123456\n")


def test_an_error_event_says_why():
    with pytest.raises(WatchError, match="too old resource version"):
        parse_event(json.dumps({"type": "ERROR", "object": GONE}).encode())


def test_delays_grow_to_a_bound_and_begin_anew():
    back_off = BackOff()
    delays = [back_off.delay(1.0) for _ in range(10)]
    assert delays[:3] == [0.2, 0.4, 0.8]
    assert delays[-1] == max(delays) == 8.0
    assert back_off.delay(0.0) == 4.0
    back_off.succeeded()
    assert back_off.delay(0.0) == 0.1


POD = {
    "STERNPOST_JOB": "gpt",
    "STERNPOST_JOB_UID": "uid-job",
    "STERNPOST_NAMESPACE": "team",
    "STERNPOST_POD": "gpt-0",
    "STERNPOST_POD_UID": "uid-0",
    "STERNPOST_NODE": "node-0",
    "STERNPOST_CONTROL_DIR": "/sternpost/control",
    "STERNPOST_CONTROL_PLANE": "kubernetes:",
    "STERNPOST_TOKEN_FILE": "/sternpost/token/token",
    "STERNPOST_PORT_EAGLE_EYE": "9470",
}


@pytest.mark.parametrize(
    ("host", "url"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_the_api_server_is_found_as_in_every_pod(host, url):
    settings = settings_from(POD | {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"})
    access = access_of(settings)
    assert access.url == url
    assert str(access.token) == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert str(access.ca) == "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    assert isinstance(control_plane_of(settings), KubernetesControlPlane)


def test_outside_a_cluster_it_says_so():
    with pytest.raises(ConfigError, match="KUBERNETES_SERVICE_HOST"):
        control_plane_of(settings_from(POD))
    with pytest.raises(ConfigError, match="expected kubernetes: or file:///absolute/path"):
        control_plane_of(settings_from(POD | {"STERNPOST_CONTROL_PLANE": "etcd:"}))
