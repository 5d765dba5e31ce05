from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sternpost_operator.local_run.services import MAX_DEATHS, SOUND_SECONDS, Service, ServiceError, tail


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def python(code: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-c", code]


def test_it_is_started_again_when_it_is_killed(tmp_path: Path) -> None:
    service = Service("sleeper", python("import time; time.sleep(60)"), os.environ, tmp_path / "logs" / "s.log")
    assert not service.tick(0)
    first = service.pid
    assert first is not None
    assert not service.tick(1)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: service.pid is None)
    assert not service.tick(SOUND_SECONDS + 1)
    assert service.tick(SOUND_SECONDS + 2)
    assert service.pid not in (None, first)
    assert service.restarts == 1
    last = service.pid
    service.end(5)
    assert service.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(last or 0, 0)


def test_one_that_does_not_stay_up_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    service = Service("broken one", python("import sys; sys.exit('no such table')"), os.environ, tmp_path / "s.log")
    now = 0.0
    with pytest.raises(ServiceError, match=r"(?s)broken one died.*no such table"):  # noqa: PT012 -- time has to pass
        for _ in range(MAX_DEATHS * 200):
            service.tick(now)
            wait_for(lambda: service.pid is None)
            now += 0.1
    assert service.restarts == MAX_DEATHS - 1


def test_pauses_grow(tmp_path: Path) -> None:
    service = Service("broken one", python("raise SystemExit(1)"), os.environ, tmp_path / "s.log")
    starts = []
    now = 0.0
    while len(starts) < 5:
        before = service.restarts
        service.tick(now)
        wait_for(lambda: service.pid is None)
        if service.restarts > before or not starts:
            starts.append(now)
        now += 0.05
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 4 * pauses[0]


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    service = Service("deaf one", python(code), os.environ, tmp_path / "s.log")
    service.tick(0)
    wait_for(lambda: "deaf" in tail(tmp_path / "s.log"))
    service.end(0.1)
    assert service.pid is None


def test_tail_is_bounded_and_begins_with_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path) == ""
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert tail(path, 30) == "line 997\nline 998\nline 999\n"
