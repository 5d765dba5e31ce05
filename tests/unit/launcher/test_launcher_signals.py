"""Signals to the launcher."""

import signal
import time

import pytest

from sternpost_launcher.reprieve import ANSWER_SECONDS

WAIT = "import time; time.sleep(600)"
GRACEFUL = (
    "import signal, sys, time\n"
    "def end(*_): print('saving', flush=True); time.sleep(0.2); print('saved', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end); open('ready', 'w').write('1'); time.sleep(600)"
)
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('ready', 'w').write('1'); time.sleep(600)"
)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_ends_ranks_gracefully(pod, number, code):
    process = pod.start_python(GRACEFUL)
    pod.order(1)
    pod.file("ready")
    process.send_signal(number)
    assert process.wait(15) == code
    assert "[a1 r0] saved" in pod.out()
    assert pod.left() == []
    again = pod.start_python(GRACEFUL)
    assert "ended by" in pod.reaches("failed", 1)["message"]
    again.terminate()
    assert again.wait(15) == 143


def test_grace_period_of_the_environment_counts_and_a_second_signal_kills_at_once(pod, until):
    process = pod.start_python(STUBBORN, STERNPOST_GRACE_SECONDS="60")
    pod.order(1)
    pod.file("ready")
    process.terminate()
    pod.reaches("stopping", 1)
    begun = time.monotonic()
    process.terminate()
    assert process.wait(15) == 143
    assert time.monotonic() - begun < 5
    assert pod.left() == []


def test_stubborn_rank_is_killed_after_the_grace_period(pod):
    process = pod.start_python(STUBBORN, STERNPOST_GRACE_SECONDS="0.4")
    pod.order(1)
    pod.file("ready")
    process.terminate()
    assert process.wait(15) == 143
    assert pod.left() == []
    assert "did not end within 0.4 s" in pod.status()["message"]


def test_ends_at_once_without_ranks(pod):
    process = pod.start_python(WAIT)
    pod.reaches("waiting")
    process.terminate()
    assert process.wait(5) == 143


def test_other_signals_are_forwarded(pod):
    script = (
        "import signal, time\n"
        "for name in ('SIGUSR1', 'SIGUSR2', 'SIGHUP'):\n"
        "    signal.signal(getattr(signal, name), lambda n, _: open(signal.Signals(n).name, 'w').write('got'))\n"
        "open('ready', 'w').write('1')\n"
        "while True: time.sleep(0.1)"
    )
    process = pod.start_python(script)
    pod.order(1)
    pod.file("ready")
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        process.send_signal(number)
        assert pod.file(number.name) == "got"
    assert pod.status()["state"] == "running"


TRAINER = (
    "import pathlib, signal, sys, time\n"
    "def end(*_): pathlib.Path('told').write_text('1'); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end); pathlib.Path('ready').write_text('1'); time.sleep(600)"
)


@pytest.fixture
def saving(pod):
    """A Pod with a checkpoint sidecar whose rank runs."""
    (pod.shm / "checkpoint").mkdir()
    process = pod.start_python(TRAINER, STERNPOST_GRACE_SECONDS="60")
    pod.order(1)
    pod.file("ready")
    return pod, process


def test_ranks_live_on_for_a_checkpoint_that_is_asked_for_and_end_with_the_attempt(saving, until):
    pod, process = saving
    process.terminate()
    until(lambda: "SIGTERM" in pod.err() + pod.out(), "the signal is noticed")
    pod.order(1, saveAtStep=17, complete=False)
    # Longer than if nobody had asked.
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > ANSWER_SECONDS + 0.5, "the time for an answer has passed")
    assert not (pod.scratch / "told").exists()
    assert pod.status()["state"] == "running"
    pod.order(2, "hold")
    assert process.wait(15) == 143
    assert pod.file("told") == "1"
    assert pod.left() == []


def test_without_a_request_the_ranks_end_soon(saving):
    pod, process = saving
    process.terminate()
    assert process.wait(15) == 143
    assert pod.file("told") == "1"
    assert pod.left() == []


def test_a_second_signal_ends_the_ranks_at_once(saving, until):
    pod, process = saving
    pod.order(1, saveAtStep=17, complete=False)
    process.terminate()
    until(lambda: "SIGTERM" in pod.err() + pod.out(), "the signal is noticed")
    begun = time.monotonic()
    process.terminate()
    assert process.wait(15) == 143
    assert time.monotonic() - begun < 2.5
    assert pod.file("told") == "1"


def test_a_later_version_of_the_same_attempt_restarts_nothing(pod, until):
    pod.start_python(TRAINER)
    pod.order(1, complete=False)
    pod.file("ready")
    before = pod.reaches("running", 1)
    pod.order(1, saveAtStep=17, complete=False)
    written = pod.status()["updatedAt"]
    until(lambda: pod.status()["updatedAt"] > written + 1, "the launcher has gone on")
    after = pod.status()
    assert (after["state"], after["ranks"]) == (before["state"], before["ranks"])
