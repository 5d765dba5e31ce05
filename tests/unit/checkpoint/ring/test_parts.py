"""The parts of the ring that need no network: who is next, what can be put together, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ring_world import JOB_UID, State, write_state

from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.ring.description import Description
from sternpost_checkpoint.ring.errors import RefusedError
from sternpost_checkpoint.ring.keys import RingKeys
from sternpost_checkpoint.ring.members import parse_members
from sternpost_checkpoint.ring.protocol import Holding, parse_holdings
from sternpost_checkpoint.ring.shelf import Shelf
from sternpost_checkpoint.ring.slots import LocalSlots
from sternpost_checkpoint.ring.survey import OWN, Held, obtainable, sources_for
from sternpost_checkpoint.shm.paths import rank_directory, slot_path


def attempt(workers: int, *, action: str = "run", **more: Any) -> dict[str, Any]:
    entries = [
        {"index": index, "uid": f"u{index}", "pod": f"gpt-{index}", "address": "10.0.0.1", "ringPort": 9472}
        for index in range(workers)
    ]
    name = "workers" if action == "run" else "previousWorkers"
    return {
        "spec": {
            "number": 3,
            "id": "3-x",
            "jobUid": JOB_UID,
            "action": action,
            "ranksPerWorker": 2,
            name: entries,
            **more,
        }
    }


def test_the_next_worker_and_whose_part_is_kept_here() -> None:
    for own, following, kept in ((0, 1, range(4, 6)), (1, 2, range(2)), (2, 0, range(2, 4))):
        members = parse_members(attempt(3), JOB_UID, f"gpt-{own}")
        assert members is not None
        assert members.next is not None
        assert (members.next.index, members.previous_ranks) == (following, kept)


def test_a_worker_alone_a_spare_and_one_on_hold_have_no_next() -> None:
    alone = parse_members(attempt(1), JOB_UID, "gpt-0")
    assert alone is not None
    assert (alone.next, alone.previous_ranks) == (None, range(0))
    spare = parse_members(attempt(3), JOB_UID, "gpt-7")
    assert spare is not None
    assert (spare.own, spare.previous_ranks) == (None, range(0))
    held = parse_members(attempt(3, action="hold"), JOB_UID, "gpt-1")
    assert held is not None
    assert held.next is None
    assert [peer.index for peer in held.others()] == [2, 0], "but they can be asked"


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"spec": []},
        {"spec": {"jobUid": "other"}},
        attempt(2, number="3"),
        {"spec": {**attempt(2)["spec"], "workers": "all"}},
    ],
)
def test_what_is_no_attempt_of_the_job_is_none(value: Any) -> None:
    assert parse_members(value, JOB_UID, "gpt-0") is None


def test_workers_without_a_valid_port_are_left_out() -> None:
    value = attempt(3)
    value["spec"]["workers"][1]["ringPort"] = None
    value["spec"]["workers"][2]["ringPort"] = 70_000
    members = parse_members(value, JOB_UID, "gpt-0")
    assert members is not None
    assert members.next is None


def held(where: int, step: int, rank: int, *, world: int = 3, replicated: bool = False, whole: bool = True) -> Held:
    return Held(where, Holding(step=step, run=1, rank=rank, world_size=world, replicated=replicated, whole=whole))


def test_obtainable_in_the_same_world() -> None:
    everything = [held(OWN, 1, 0), held(1, 2, 1, whole=False), held(2, 2, 2), held(1, 3, 1, whole=False)]
    assert obtainable(everything, 0, 3) == [Generation(1, 1)]
    assert obtainable(everything, 1, 3) == [Generation(2, 1)], "of step 3 nobody has what all ranks share"
    assert obtainable(everything, 2, None) == [Generation(2, 1)]


def test_obtainable_in_another_world() -> None:
    assert obtainable([held(1, 1, 0), held(1, 1, 1)], 0, 2) == []
    assert obtainable([held(1, 1, 0), held(1, 1, 1), held(2, 1, 2, whole=False)], 0, 2) == [Generation(1, 1)]
    assert obtainable([held(1, 1, 2, replicated=True)], 9, 12) == [Generation(1, 1)]
    assert obtainable([held(1, 1, 2, replicated=True, whole=False)], 9, 12) == []
    assert obtainable([held(1, 1, 0), held(2, 1, 1, world=4)], 0, 3) == [], "two states of one name"


def test_of_many_replicas_a_few_are_asked_and_the_own_memory_first() -> None:
    many = [held(index, 1, index, world=100, replicated=True) for index in range(100)] + [held(OWN, 1, 50, world=100)]
    chosen = sources_for(many, Generation(1, 1), 7)
    assert chosen[0].holding.rank == 7
    assert len(sources_for(many[:100], Generation(1, 1), 7)) == 5


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [[1, 2]],
        [[1, 1, 0, 0, True, True]],
        [[1, 1, 0, 2, 1, True]],
        [[-1, 1, 0, 2, True, True]],
    ],
)
def test_holdings_that_cannot_be(value: Any) -> None:
    with pytest.raises(RefusedError):
        parse_holdings(value)


def described(folder: Path, step: int, rank: int = 0, run: int = 1, **more: Any) -> Description:
    header = write_state(
        slot_path(rank_directory(folder, rank), 0), State(step, rank, 3, **more), sequence=step, run=run
    )
    return LocalSlots(folder).describe(rank, 0, header).description


def keep(shelf: Shelf, description: Description, favoured: range = range(3)) -> None:
    with shelf.receiving(description, favoured):
        pass


def test_the_shelf_keeps_two_of_a_rank_and_reuses_their_memory(tmp_path: Path) -> None:
    shelf = Shelf(2**20)
    for step in range(1, 4):
        keep(shelf, described(tmp_path, step))
    before = shelf.used_bytes
    for step in range(4, 9):
        keep(shelf, described(tmp_path, step))
    assert shelf.used_bytes == before
    assert {part.description.header.step for part in shelf.parts()} == {7, 8}


def test_an_older_state_does_not_push_out_newer_ones(tmp_path: Path) -> None:
    shelf = Shelf(2**20)
    for step in (5, 6):
        keep(shelf, described(tmp_path, step))
    with pytest.raises(RefusedError, match="newer generations"):
        keep(shelf, described(tmp_path, 4))
    assert {part.description.header.step for part in shelf.parts()} == {5, 6}


def test_what_was_kept_for_others_gives_way_first(tmp_path: Path) -> None:
    size = Shelf(2**30)
    keep(size, described(tmp_path, 1, rank=2))
    shelf = Shelf(2 * size.used_bytes)
    keep(shelf, described(tmp_path, 1, rank=2), range(2, 3))
    keep(shelf, described(tmp_path, 1, rank=0), range(1))
    keep(shelf, described(tmp_path, 2, rank=0), range(1))
    assert {part.key for part in shelf.parts()} == {(0, Generation(1, 1)), (0, Generation(2, 1))}
    with pytest.raises(RefusedError, match="peerMemory") as refused:
        keep(shelf, described(tmp_path, 1, rank=1), range(2))
    assert refused.value.kind == "memory"


def test_one_rank_is_received_once_at_a_time_and_memory_that_is_read_is_not_reused(tmp_path: Path) -> None:
    shelf = Shelf(2**20)
    first = described(tmp_path, 1)
    with shelf.receiving(first, range(3)), pytest.raises(RefusedError, match="another connection"):
        keep(shelf, described(tmp_path, 2))
    part = shelf.part(0, Generation(1, 1))
    assert part is not None
    with shelf.reading(part):
        for step in (2, 3):
            keep(shelf, described(tmp_path, step))
        assert all(other.memory is not part.memory for other in shelf.parts())


@pytest.mark.parametrize("content", ["", "short\n", "t" * 31])
def test_weak_tokens_are_refused_and_not_shown(tmp_path: Path, content: str) -> None:
    from ring_world import write_keys

    from sternpost_checkpoint.ring.errors import RingError

    keys = write_keys(tmp_path / "keys")
    (keys / "tokens").write_text(content)
    with pytest.raises(RingError, match="32 characters") as caught:
        RingKeys(keys).current()
    assert not content or content.strip() not in str(caught.value)


def test_a_broken_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    from ring_world import write_keys

    from sternpost_checkpoint.ring.errors import RingError

    keys = write_keys(tmp_path / "keys")
    (keys / "tls.key").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    with pytest.raises(RingError, match="malformed") as caught:
        RingKeys(keys).current()
    assert "c2VjcmV0" not in str(caught.value)
    (keys / "tls.key").unlink()
    with pytest.raises(RingError, match=r"tls\.key: No such file"):
        RingKeys(keys).current()
