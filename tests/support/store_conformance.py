"""What every checkpoint store must do. Subclass `StoreConformance` and give a fixture `store`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from sternpost_checkpoint.errors import FormatError, NotFoundError, StoreError
from sternpost_checkpoint.store.base import Store


class StoreConformance:
    winners = 1
    """How many of eight that write on a condition at the same moment may be told that they won."""

    def test_put_get_read_size(self, store: Store) -> None:
        assert store.put("a/b.json", [b"12", memoryview(b"345"), b""]) == 5
        assert store.get("a/b.json", 5) == b"12345"
        assert store.read("a/b.json", 1, 3) == b"234"
        assert store.read("a/b.json", 5, 0) == b""
        assert store.size("a/b.json") == 5
        store.put("a/b.json", [b"new"])
        assert store.get("a/b.json", 5) == b"new"

    def test_an_empty_object(self, store: Store) -> None:
        assert store.put("empty", []) == 0
        assert store.get("empty", 0) == b""

    def test_a_large_object_in_pieces(self, store: Store) -> None:
        piece = os.urandom(1 << 20)
        assert store.put("large", [piece, memoryview(piece)] * 35) == 70 << 20
        assert store.read("large", 69 << 20, 1 << 20) == piece
        assert store.read("large", 1 << 20, 40 << 20) == piece * 40
        target = bytearray(40 << 20)
        store.read_into("large", 30 << 20, memoryview(target))
        assert target == piece * 40
        with pytest.raises(FormatError, match="cut short"):
            store.read_into("large", 31 << 20, memoryview(target))

    def test_missing(self, store: Store) -> None:
        for call in (
            lambda: store.get("x", 9),
            lambda: store.size("x"),
            lambda: store.read("x", 0, 1),
            lambda: store.read_into("x", 0, memoryview(bytearray(1))),
        ):
            with pytest.raises(NotFoundError, match="x is not there"):
                call()
        assert store.get_or_none("x", 9) is None
        assert store.list("") == []
        assert store.list("nowhere/") == []
        store.delete("x")

    def test_limits(self, store: Store) -> None:
        store.put("a", [b"12345"])
        with pytest.raises(StoreError, match="over the limit of 4"):
            store.get("a", 4)
        with pytest.raises(FormatError, match="cut short"):
            store.read("a", 3, 3)

    def test_list_is_sorted_and_below_the_prefix(self, store: Store) -> None:
        for name in ("g/2/x", "g/1/y", "g/1/x", "gg/z", "top"):
            store.put(name, [name.encode()])
        assert [entry.name for entry in store.list("g/")] == ["g/1/x", "g/1/y", "g/2/x"]
        assert [entry.bytes for entry in store.list("g/1/")] == [5, 5]
        assert len(store.list("")) == 5

    def test_put_if_absent_has_one_winner(self, store: Store) -> None:
        barrier, wins = threading.Barrier(8), []

        def contend(number: int) -> None:
            barrier.wait()
            if store.put_if_absent("runs/000001.json", str(number).encode()):
                wins.append(number)

        _all_at_once(contend)
        assert 1 <= len(wins) <= self.winners
        assert store.get("runs/000001.json", 9) in {str(winner).encode() for winner in wins}

    def test_replace_compares(self, store: Store) -> None:
        assert not store.replace("latest.json", b"x", b"something")
        assert store.replace("latest.json", b"1", None)
        assert not store.replace("latest.json", b"2", None)
        assert not store.replace("latest.json", b"2", b"0")
        assert store.replace("latest.json", b"2", b"1")
        assert store.get("latest.json", 9) == b"2"

    def test_replace_has_one_winner(self, store: Store) -> None:
        store.put("latest.json", [b"old"])
        barrier, wins = threading.Barrier(8), []

        def contend(number: int) -> None:
            barrier.wait()
            if store.replace("latest.json", str(number).encode(), b"old"):
                wins.append(number)

        _all_at_once(contend)
        assert 1 <= len(wins) <= self.winners
        assert store.get("latest.json", 9) in {str(winner).encode() for winner in wins}

    def test_an_error_of_the_pieces_leaves_nothing(self, store: Store) -> None:
        def pieces() -> Iterator[bytes]:
            for _ in range(5):
                yield b"x" * (9 << 20)
            raise KeyError("torn")

        store.put("a/b", [b"old"])
        with pytest.raises(KeyError, match="torn"):
            store.put("a/b", pieces())
        with pytest.raises(KeyError, match="torn"):
            store.put("a/c", pieces())
        assert [entry.name for entry in store.list("")] == ["a/b"]
        assert store.get("a/b", 9) == b"old"

    def test_delete(self, store: Store) -> None:
        store.put("a/b", [b"1"])
        store.delete("a/b")
        assert store.list("") == []
        store.put("a/b", [b"2"])
        assert store.get("a/b", 1) == b"2"

    @pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../b", "a//b", ".hidden", "", "a\0b", "a\\b", "a" * 2000])
    def test_names_without_tricks(self, store: Store, name: str) -> None:
        for call in (
            lambda: store.get(name, 1),
            lambda: store.read(name, 0, 1),
            lambda: store.size(name),
            lambda: store.put(name, [b""]),
            lambda: store.put_if_absent(name, b""),
            lambda: store.replace(name, b"", b"x"),
            lambda: store.delete(name),
        ):
            with pytest.raises(FormatError):
                call()


def _all_at_once(contend: object) -> None:
    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
