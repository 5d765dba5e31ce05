import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_launcher.attempt_file import Action, AttemptFile, parse_attempt
from sternpost_launcher.json_file import UnusableFileError
from sternpost_operator.resources.attempt import Attempt as Resource

SPEC = {
    "job": "gpt",
    "jobUid": "u",
    "number": 3,
    "id": "3-9f2c1a00",
    "action": "run",
    "ranksPerWorker": 2,
    "worldSize": 4,
    "workers": [
        {"pod": "gpt-0", "uid": "u0", "node": "a", "address": "gpt-0.gpt", "eagleEyePort": 9470, "index": 0},
        {"pod": "gpt-2", "uid": "u2", "node": "b", "address": "10.0.0.2", "eagleEyePort": 9470, "index": 1},
    ],
    "spares": [{"pod": "gpt-1", "uid": "u1", "node": "c", "address": "fe80::1%eth0", "eagleEyePort": 9470}],
    "masterAddress": "gpt-0.gpt",
    "masterPort": 29400,
    "graceSeconds": 2.5,
    "issuedAt": "2025-11-24T12:00:00.5Z",
}


def encode(**spec):
    return json.dumps({"kind": "Attempt", "spec": {**SPEC, **spec}}).encode()


def test_reads_what_the_operator_writes():
    resource = Resource.model_validate({"metadata": {"name": "gpt"}, "spec": SPEC})
    attempt = parse_attempt(json.dumps(resource.to_wire()).encode())
    assert attempt == parse_attempt(encode())
    assert (attempt.number, attempt.id, attempt.action, attempt.world_size) == (3, "3-9f2c1a00", Action.RUN, 4)
    assert attempt.issued_at == 1763985600.5
    assert attempt.worker_index("gpt-2", "u2") == 1
    assert attempt.worker_index("gpt-2", "") == 1
    assert attempt.worker_index("gpt-2", "another Pod of this name") is None
    assert attempt.is_spare("gpt-1", "u1")
    assert not attempt.is_spare("gpt-0", "u0")


def test_hold_needs_no_workers_and_workers_come_in_any_order():
    hold = parse_attempt(encode(action="hold", worldSize=0, workers=[], spares=[], masterAddress="", masterPort=0))
    assert hold.workers == ()
    assert parse_attempt(encode(workers=SPEC["workers"][::-1])) == parse_attempt(encode())
    assert parse_attempt(encode(somethingNew=1)) == parse_attempt(encode())


@pytest.mark.parametrize(("value", "step"), [(7, 7), (0, 0), (None, None), ("7", None), (True, None), ([], None)])
def test_a_checkpoint_that_is_asked_for_is_read_and_never_a_reason_to_refuse(value, step):
    assert parse_attempt(encode(saveAtStep=value)).save_at_step == step


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.123456789-00:30", 1800.123456789),
    ],
)
def test_times(text, seconds):
    assert parse_attempt(encode(issuedAt=text)).issued_at == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", 0),
        ("number", True),
        ("number", 1.0),
        ("number", 2**60),
        ("id", ""),
        ("id", "../x"),
        ("id", "3-\n"),
        ("id", "x" * 129),
        ("action", "dance"),
        ("action", None),
        ("jobUid", 7),
        ("ranksPerWorker", 0),
        ("ranksPerWorker", 10**9),
        ("worldSize", 5),
        ("workers", {}),
        ("workers", []),
        ("workers", [SPEC["workers"][0]] * 2),
        ("workers", [7]),
        ("spares", [{"pod": "x"}]),
        ("masterAddress", "a b"),
        ("masterAddress", ""),
        ("masterPort", 65536),
        ("masterPort", 0),
        ("graceSeconds", -1),
        ("graceSeconds", float("nan")),
        ("graceSeconds", float("inf")),
        ("issuedAt", "yesterday"),
        ("issuedAt", "2025-13-01T00:00:00Z"),
        ("issuedAt", "0001-01-01T00:00:00+23:59"),
        ("issuedAt", None),
    ],
)
def test_refuses_what_is_not_as_it_should_be_and_names_it(field, value):
    with pytest.raises(UnusableFileError, match=field):
        parse_attempt(encode(**{field: value}))


@settings(deadline=None, max_examples=150)
@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_garbage_is_refused_and_nothing_else_happens(content):
    with pytest.raises(UnusableFileError):
        parse_attempt(content)


PLACES = [("spec", name) for name in SPEC] + [("spec", "workers", 0, name) for name in SPEC["workers"][0]]


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(PLACES),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_any_field_may_hold_anything(place, value):
    document = copy.deepcopy({"spec": SPEC})
    inside = document
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = value
    try:
        parsed = parse_attempt(json.dumps(document).encode())
    except UnusableFileError:
        return
    assert parsed.world_size == len(parsed.workers) * parsed.ranks_per_worker


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_file_keeps_quiet_about_what_it_cannot_use(tmp_path, cut):
    path = tmp_path / "attempt.json"
    file = AttemptFile(path)
    assert file.poll(0.0) is None
    assert file.problem == ""
    path.write_bytes(encode())
    assert file.poll(0.1).number == 3
    assert file.poll(0.2) is None, "unchanged"
    assert file.poll(3.0).number == 3, "read again, in case the time stamps did not show a change"
    path.write_bytes(encode()[:-cut])
    assert file.poll(3.1) is None
    assert "not JSON" in file.problem
    assert file.poll(3.2) is None
    assert "not JSON" in file.problem
    path.unlink()
    path.mkdir()
    assert file.poll(3.3) is None
    assert "directory" in file.problem


def test_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("sternpost_launcher.attempt_file.MAX_BYTES", 100)
    path = tmp_path / "attempt.json"
    path.write_bytes(encode())
    file = AttemptFile(path)
    assert file.poll(0.0) is None
    assert file.problem == "larger than 100 bytes"
