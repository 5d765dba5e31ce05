"""A checkpoint that is asked for: a later version of the same attempt. It is handed on, and changes nothing else."""

from __future__ import annotations

import json

import pytest

from sternpost_eagle_eye.attempt import Attempt
from sternpost_eagle_eye.control_plane.attempt_document import parse_attempt
from sternpost_eagle_eye.sidecar.attempt_handover import AttemptHandover
from sternpost_eagle_eye.sidecar.own_metrics import OwnMetrics

LATER = 1_764_000_100.0


def asking(make_attempt_bytes, step=17):
    value = json.loads(make_attempt_bytes(4, issued_at=LATER))
    value["spec"]["saveAtStep"] = step
    return json.dumps(value).encode()


def test_the_launcher_and_the_ranks_get_the_step(tmp_path, make_attempt_bytes):
    handover = AttemptHandover(tmp_path, "uid-job")
    assert handover.offer(parse_attempt(make_attempt_bytes(4), "uid-job"))
    assert handover.offer(parse_attempt(asking(make_attempt_bytes), "uid-job"))
    # What was issued before comes late, and takes nothing back.
    assert not handover.offer(parse_attempt(make_attempt_bytes(4), "uid-job"))
    assert json.loads((tmp_path / "attempt.json").read_bytes())["spec"]["saveAtStep"] == 17


@pytest.fixture
def court(tmp_path, make_court):
    return make_court(tmp_path, OwnMetrics(), lambda: 0.0)


def test_the_judge_goes_on_with_what_it_knows(court, make_attempt_bytes):
    court.convene(Attempt.model_validate_json(make_attempt_bytes(4)))
    session = court.session
    assert session is not None
    court.convene(Attempt.model_validate_json(asking(make_attempt_bytes)))
    assert court.session is session
    assert court.progress() is not None
