from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.cluster.local.ports import PortPool, choose_range, is_free, port_range


def test_ports_are_held_until_released(tmp_path: Path) -> None:
    pool = PortPool(tmp_path / "ports")
    taken = [pool.take(f"node-1/{i}") for i in range(20)]
    other = pool.take("node-2/x")
    assert len({*taken, other}) == 21
    assert all(port in port_range() for port in taken)
    assert pool.held()[other] == "node-2/x"
    assert pool.release("node-1/") == 20
    assert pool.release("node-2/", older_than_seconds=60) == 0
    assert list(pool.held()) == [other]


def test_takers_at_once_never_get_the_same(tmp_path: Path) -> None:
    taken: list[int] = []

    def take() -> None:
        pool = PortPool(tmp_path / "ports")
        taken.extend(pool.take("node-1/x") for _ in range(20))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 80


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
def test_ports_that_somebody_listens_at_are_not_free(address: str) -> None:
    with socket.socket() as listener:
        listener.bind((address, 0))
        port = listener.getsockname()[1]
        listener.listen()
        assert not is_free(port)
    assert is_free(port)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(1024, 65535), st.integers(1024, 65535))
def test_ranges_avoid_outgoing_connections_where_they_can(one: int, other: int) -> None:
    low, high = sorted((one, other))
    chosen = choose_range(low, high)
    assert chosen
    assert chosen[0] >= 1024
    assert chosen[-1] <= 65535
    if low >= 22_000 or high <= 63_535:
        assert not (set(chosen) & set(range(low, high + 1)))


def test_holders_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        PortPool(tmp_path).take("a\nb")
