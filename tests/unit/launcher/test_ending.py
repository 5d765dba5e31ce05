import signal

from sternpost_launcher.ending import Ending
from sternpost_launcher.processes import Process

A = Process(10, 100, 1, 10, "S")
B = Process(11, 100, 10, 10, "S")
AGAIN = Process(10, 200, 1, 10, "S")  # another process with A's pid
TERM, CONT, KILL = signal.SIGTERM, signal.SIGCONT, signal.SIGKILL


def test_each_process_is_asked_once_then_killed():
    ending = Ending(0.0, 5.0)
    assert ending.step([A], 0.0) == [(A, TERM), (A, CONT)]
    assert ending.step([A, B], 1.0) == [(B, TERM), (B, CONT)]
    assert ending.step([AGAIN, B], 2.0) == [(AGAIN, TERM), (AGAIN, CONT)]
    assert ending.step([B], 4.9) == []
    assert ending.killed == {}
    assert ending.step([B], 5.0) == [(B, KILL)]
    assert list(ending.killed) == [11]


def test_hurry_only_shortens():
    ending = Ending(0.0, 5.0)
    ending.hurry(1.0, 60.0)
    assert (ending.grace, ending.step([A], 5.0)) == (5.0, [(A, KILL)])
    ending = Ending(0.0, 5.0)
    ending.hurry(1.0, 1.0)
    assert (ending.grace, ending.step([A], 2.0)) == (1.0, [(A, KILL)])
    ending = Ending(0.0, 5.0)
    ending.kill_now(0.5)
    assert ending.step([A], 0.5) == [(A, KILL)]


def test_what_outlives_sigkill_is_stuck():
    ending = Ending(0.0, 1.0)
    ending.step([A], 1.0)
    assert not ending.stuck(10.0)
    assert ending.stuck(16.0)
