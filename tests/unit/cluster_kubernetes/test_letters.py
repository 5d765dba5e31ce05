from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sternpost_operator.cluster.kubernetes.letters import MAX_KEPT, Letter, Letters, packed, unpacked
from sternpost_operator.resources.training_job_status import Incident

START = datetime(2026, 1, 1, tzinfo=UTC)


def letter(number: int, uid: str = "u", text: str = "left node-1") -> Letter:
    incident = Incident(id=f"{uid}-{number}", at=START + timedelta(seconds=number), text=text, node="node-1")
    return Letter("http://memory", "team", "", "team", "gpt", uid, incident)


@pytest.fixture
def letters() -> Letters:
    return Letters()


def test_letters_wait_until_they_are_taken_and_are_not_sent_again(letters) -> None:
    for number in (2, 1, 2):
        letters.offer(letter(number))
    assert [each.id for each in letters.waiting()] == ["u-1", "u-2"], "the oldest first, each once"
    letters.take(letter(1))
    assert letters.taken("u") == {"u-1"}
    letters.offer(letter(1))
    assert [each.id for each in letters.waiting()] == ["u-2"], "the status has not forgotten it yet"
    letters.settle("u", ["u-2"])
    assert letters.taken("u") == frozenset()


def test_what_a_deleted_job_still_had_to_tell_is_kept(letters) -> None:
    letters.offer(letter(1))
    letters.offer(letter(2, "other"))
    letters.offer(letter(1), orphan=True)
    letters.offer(letter(3), orphan=True)
    letters.forget("u")
    assert [each.id for each in letters.orphans()] == ["u-1", "u-3"]
    letters.take(letter(1))
    assert [each.id for each in letters.orphans()] == ["u-3"]
    letters.forget("other")
    assert [each.id for each in letters.waiting()] == ["u-3"]


def test_the_outbox_keeps_the_newest_that_it_has_room_for() -> None:
    many = [letter(number) for number in range(MAX_KEPT + 5)]
    kept = unpacked(packed(many))
    assert kept == many[5:]
    large = [letter(number, text="x" * 200_000) for number in range(4)]
    assert unpacked(packed(large)) == large[2:]
    assert packed([]) == ""


def test_garbage_in_the_outbox_is_left_out() -> None:
    good = packed([letter(1)])
    assert unpacked(f'{good}\nnonsense\n[1]\n{{"url": "x"}}\n') == [letter(1)]
