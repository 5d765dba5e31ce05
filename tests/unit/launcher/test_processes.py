import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_launcher.family import select
from sternpost_launcher.processes import (
    Process,
    ancestors,
    descendants,
    has_environment,
    parse_stat,
    read_process,
    send,
)


def process(pid, parent, state="S"):
    return Process(pid, pid * 10, parent, pid, state)


def test_stat_line_with_a_hostile_name():
    fields = b"R 1 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0"
    assert parse_stat(b"43 (a) b (c)) " + fields) == Process(43, 777, 1, 42, "R")
    with pytest.raises(ValueError, match="not a line"):
        parse_stat(b"")


def test_own_stat_is_stable_and_true():
    own = read_process(os.getpid())
    assert own.parent == os.getppid()
    assert own.start_time == read_process(os.getpid()).start_time
    assert read_process(2**22 + 1) is None


def test_descendants_and_ancestors():
    everyone = [process(1, 0), process(2, 1), process(3, 2), process(4, 3), process(5, 1)]
    assert {p.pid for p in descendants(everyone, [2])} == {3, 4}
    assert {p.pid for p in descendants(everyone, [2, 3])} == {4}
    assert ancestors(everyone, 4) == {4, 3, 2, 1}


def test_select_spares_helpers_the_dead_and_ancestors():
    everyone = [
        process(1, 0),
        process(10, 1),  # the launcher
        process(11, 10),  # a rank
        process(12, 11),
        process(13, 10),  # nvidia-smi
        process(14, 13),
        process(15, 10, "Z"),
        process(20, 1),  # what an earlier launcher left
        process(21, 20),
        process(22, 1),  # has the pid of one, and is another
        process(30, 1),
    ]
    seen = {(20, 200), (22, 1), (1, 10), (99, 990)}
    assert sorted(p.pid for p in select(everyone, 10, {13}, seen)) == [11, 12, 20, 21]


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.integers(2, 30), st.integers(1, 30), max_size=25), st.sets(st.integers(2, 30), max_size=4))
def test_select_ends_on_any_graph_and_never_names_itself(parents, helpers):
    everyone = [process(1, 0), *(process(pid, parent) for pid, parent in parents.items())]
    found = {p.pid for p in select(everyone, 1, helpers, set())}
    assert 1 not in found
    assert not found & helpers


def test_send_reaches_exactly_the_process_that_is_meant():
    child = subprocess.Popen(["/bin/sleep", "600"])
    try:
        found = read_process(child.pid)
        stranger = Process(found.pid, found.start_time + 1, found.parent, found.group, found.state)
        assert not send(stranger, signal.SIGKILL)
        assert child.poll() is None
        assert send(found, signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
        assert not send(found, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()


def test_environment(until):
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], env={"MARK": "", "A": "1=2"}, stdin=subprocess.PIPE
    )
    try:
        # A process that is still being executed has no environment yet.
        until(lambda: has_environment(child.pid, "MARK", {"A": "1=2", "B": None}), "the child's environment")
        assert not has_environment(child.pid, "MARK", {"A": "1"})
        assert not has_environment(child.pid, "MARK", {"A": None})
        assert not has_environment(child.pid, "OTHER", {})
    finally:
        child.communicate(b"\n")
    assert not has_environment(child.pid, "MARK", {})
