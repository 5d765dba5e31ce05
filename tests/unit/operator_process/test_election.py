"""The election with virtual time; a simulation of replicas that crash, stall and lose the API server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.operator_process.election import (
    LEASE_SECONDS,
    RENEW_DEADLINE_SECONDS,
    RETRY_SECONDS,
    Do,
    Election,
    Lease,
)

WALL = datetime(2026, 1, 1, tzinfo=UTC)


def held(version: str = "1", holder: str = "other") -> Lease:
    return Lease(holder, version, WALL, WALL, 0)


def test_a_lease_that_nobody_has_is_taken_at_once() -> None:
    election = Election("me", 0)
    election.seen(None, 5)
    assert election.next(5).do is Do.TAKE
    assert election.to_write(WALL) == Lease("me", "", WALL, WALL, 0)


def test_a_lease_that_was_given_back_is_taken_at_once() -> None:
    election = Election("me", 0)
    election.seen(held(holder=""), 5)
    assert election.next(5).do is Do.TAKE
    taken = election.to_write(WALL)
    assert (taken.holder, taken.version, taken.transitions) == ("me", "1", 1)


def test_another_ones_lease_is_waited_for_from_when_it_last_changed() -> None:
    election = Election("me", 0)
    election.seen(held("1"), 3)
    assert election.next(3).seconds == LEASE_SECONDS
    election.seen(held("1"), 8)
    assert election.next(8).seconds == LEASE_SECONDS - 5, "seen again, it has not changed"
    election.seen(held("2"), 9)
    assert election.next(9).seconds == LEASE_SECONDS
    assert election.next(9 + LEASE_SECONDS).do is Do.TAKE


def test_a_failed_write_is_not_repeated_in_a_spin() -> None:
    election = Election("me", 0)
    election.seen(None, 0)
    election.failed(0)
    step = election.next(0)
    assert step.do is Do.WAIT
    assert 0 < step.seconds <= 1


def lead(now: float = 100.0) -> Election:
    election = Election("me", now)
    election.seen(None, now)
    election.wrote(replace(election.to_write(WALL), version="1"), now)
    return election


def test_a_leader_renews_and_keeps_when_it_acquired() -> None:
    election = lead(100)
    assert election.next(100).do is Do.WAIT
    assert election.next(100 + RETRY_SECONDS).do is Do.RENEW
    later = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    renewed = election.to_write(later)
    assert (renewed.acquired_at, renewed.renewed_at, renewed.transitions) == (WALL, later, 0)


def test_a_leader_that_cannot_renew_ends_before_anybody_else_may_begin() -> None:
    election = lead(100)
    now = 100.0
    while (step := election.next(now)).do is not Do.END:
        if step.do is Do.RENEW:
            election.failed(now)
        now += step.seconds
        assert now <= 100 + RENEW_DEADLINE_SECONDS
    assert now - 100 <= RENEW_DEADLINE_SECONDS < LEASE_SECONDS


def test_a_renewal_counts_from_when_it_was_asked_for() -> None:
    election = lead(100)
    election.wrote(replace(election.to_write(WALL), version="2"), 102)  # the answer came at 106
    assert election.next(102 + RENEW_DEADLINE_SECONDS).do is Do.END


def test_a_leader_whose_lease_another_one_has_ends() -> None:
    election = lead(100)
    election.seen(held("9"), 101)
    assert election.next(101).do is Do.END


def test_giving_back_is_only_for_the_leader() -> None:
    assert Election("me", 0).to_give_back(WALL) is None
    back = lead().to_give_back(WALL)
    assert back is not None
    assert (back.holder, back.version) == ("", "1")


def test_changes_of_the_leader_are_told() -> None:
    told: list[int] = []
    election = Election("me", 0, lambda: told.append(1))
    election.seen(held("1", "a"), 0)
    election.seen(held("2", "a"), 1)
    election.seen(held("3", "b"), 2)
    assert told == [1]


# --- several replicas on one Lease ---


@dataclass
class Replica:
    election: Election
    alive: bool = True
    stalled_until: float = 0.0
    offline_until: float = 0.0
    """Its requests fail, and it sees nothing."""
    ended: bool = False


class World:
    """One Lease object with versions, and replicas that look at it each time they act."""

    def __init__(self, count: int) -> None:
        self.now = 0.0
        self.lease: Lease | None = None
        self.version = 0
        self.replicas = [Replica(Election(f"r{number}", 0.0)) for number in range(count)]

    def write(self, replica: Replica, lease: Lease, asked_at: float) -> None:
        current = self.lease.version if self.lease is not None else ""
        if lease.version != current:
            replica.election.failed(self.now)
            replica.election.seen(self.lease, self.now)
            return
        self.version += 1
        self.lease = replace(lease, version=str(self.version))
        replica.election.wrote(self.lease, asked_at)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for replica in self.replicas:
            if not replica.alive or replica.ended or self.now < replica.stalled_until:
                continue
            online = self.now >= replica.offline_until
            if online and not replica.election.leads:
                replica.election.seen(self.lease, self.now)
            step = replica.election.next(self.now)
            if step.do is Do.END:
                replica.ended = True
            elif step.do in (Do.TAKE, Do.RENEW):
                if online:
                    self.write(replica, replica.election.to_write(WALL), self.now)
                else:
                    replica.election.failed(self.now)

    def leaders(self) -> list[Replica]:
        """Those that lead and could act at this moment: one that stands still acts only after it looked at its clock."""
        return [
            each
            for each in self.replicas
            if each.alive
            and not each.ended
            and each.election.leads
            and self.now >= each.stalled_until
            and each.election.next(self.now).do is not Do.END
        ]


FAULTS = st.lists(
    st.tuples(st.sampled_from(["crash", "stall", "offline", "restart", "none"]), st.integers(0, 2), st.floats(0.1, 30)),
    max_size=25,
)


@settings(max_examples=200)
@given(FAULTS)
def test_there_are_never_two_leaders_and_always_one_again(faults: list[tuple[str, int, float]]) -> None:
    world = World(3)
    for fault, number, seconds in faults:
        replica = world.replicas[number]
        match fault:
            case "crash":
                replica.alive = False
            case "stall":
                replica.stalled_until = world.now + seconds
            case "offline":
                replica.offline_until = world.now + seconds
            case "restart":
                world.replicas[number] = Replica(Election(f"r{number}-{world.now}", world.now))
        end = world.now + seconds
        while world.now < end:
            world.tick(0.25)
            assert len(world.leaders()) <= 1
    # All is well again: within the lease and a retry there is a leader.
    for number, replica in enumerate(world.replicas):
        replica.stalled_until = replica.offline_until = 0.0
        if not replica.alive or replica.ended:
            world.replicas[number] = Replica(Election(f"new-{number}", world.now))
    deadline = world.now + LEASE_SECONDS + RETRY_SECONDS
    while not world.leaders():
        world.tick(0.25)
        for number, replica in enumerate(world.replicas):
            if replica.ended:
                world.replicas[number] = Replica(Election(f"newer-{number}", world.now))
        assert world.now <= deadline + RENEW_DEADLINE_SECONDS
