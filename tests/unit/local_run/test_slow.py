from __future__ import annotations

import signal

import pytest

from sternpost_operator.cluster.local.processes import ProcessIdentity
from sternpost_operator.local_run.slow import LEAST, PERIOD, SEARCH, DutyCycle


class World:
    """Virtual time, and what is stopped when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.processes = [ProcessIdentity(1, 1), ProcessIdentity(2, 1)]
        self.stopped: set[int] = set()
        self.ran = {1: 0.0, 2: 0.0, 3: 0.0}
        self.hung: set[int] = set()
        self.searches = 0

    def find(self) -> list[ProcessIdentity]:
        self.searches += 1
        return list(self.processes)

    def send(self, process: ProcessIdentity, number: signal.Signals) -> bool:
        (self.stopped.add if number == signal.SIGSTOP else self.stopped.discard)(process.pid)
        return True

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for process in self.processes:
            if process.pid not in self.stopped:
                self.ran[process.pid] += seconds

    def duty(self, factor: float) -> DutyCycle:
        return DutyCycle(
            factor, self.find, hung=lambda: self.hung, send=self.send, sleep=self.sleep, clock=lambda: self.now
        )


@pytest.mark.parametrize("factor", [1, 1.5, 3, 10])
def test_a_process_runs_for_its_share(factor: float) -> None:
    world = World()
    duty = world.duty(factor)
    for _ in range(100):
        duty.cycle()
    assert world.ran[1] / world.now == pytest.approx(1 / factor)
    assert world.now == pytest.approx(100 * PERIOD)
    assert not world.stopped
    assert world.searches <= world.now / SEARCH + 1


@pytest.mark.parametrize(("before", "while_running"), [(1.0, 1.0), (0.6, 0.9), (0.9, 0.9), (0.5, 1.0), (0.2, 1.0)])
def test_the_share_is_one_of_what_it_used_before(before: float, while_running: float) -> None:
    factor = 3
    world = World()
    world.processes = [ProcessIdentity(1, 1)]
    speed = before
    spent = 0.0

    def sleep(seconds: float) -> None:
        nonlocal spent
        ran = world.ran[1]
        world.sleep(seconds)
        spent += (world.ran[1] - ran) * speed

    duty = DutyCycle(
        factor,
        world.find,
        used=lambda processes: dict.fromkeys(processes, spent),
        send=world.send,
        sleep=sleep,
        clock=lambda: world.now,
    )
    duty.measure()
    speed = while_running
    for _ in range(100):
        duty.cycle()
    began, spent_before = world.now, spent
    for _ in range(100):
        duty.cycle()
    rate = (spent - spent_before) / (world.now - began)
    least = LEAST * while_running / factor
    assert rate == pytest.approx(max(before / factor, least), rel=0.1)


def test_later_processes_are_found() -> None:
    world = World()
    duty = world.duty(3)
    duty.cycle()
    world.processes = [ProcessIdentity(3, 9)]
    for _ in range(100):
        duty.cycle()
    assert world.ran[3] < world.now / 2


def test_a_hung_one_stays_hung() -> None:
    world = World()
    world.hung = {2}
    world.duty(3).cycle()
    assert world.stopped == {2}


def test_the_end_leaves_nothing_standing_still() -> None:
    world = World()

    def interrupted(seconds: float) -> None:
        raise SystemExit(0)

    duty = DutyCycle(3, world.find, send=world.send, sleep=interrupted, clock=lambda: 0.0)
    with pytest.raises(SystemExit):
        duty.cycle()
    assert not world.stopped
