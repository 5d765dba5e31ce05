"""Peers that break off, stall, lie and attack: bounded, refused, and the next source is asked."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import xxhash
from ring_world import JOB_UID, State, Worker, commit_states, expect, held, restore, tell, write_state

from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.ring import stream
from sternpost_checkpoint.ring.channel import MAX_JSON_BYTES, Channel, connect
from sternpost_checkpoint.ring.description import Description, parse_description
from sternpost_checkpoint.ring.errors import RefusedError, RingError
from sternpost_checkpoint.ring.holder import State as HeldState
from sternpost_checkpoint.ring.keys import SERVER_NAME, RingKeys
from sternpost_checkpoint.ring.server import MAX_CONNECTIONS, MAX_STRANGERS
from sternpost_checkpoint.ring.slots import LocalSlots
from sternpost_checkpoint.shm.slot import SlotWriter

Script = Callable[[Channel, dict[str, Any], HeldState], bool]
"""What a peer does with a request; whether it goes on."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STALL_SECONDS", 0.3)


class FakePeer:
    """Worker 1's sidecar, gone wrong: greets, describes rank 1's state, and then does as the script says."""

    def __init__(self, worker: Worker, state: HeldState, script: Script) -> None:
        self.worker, self.state, self.script = worker, state, script
        self.keys = RingKeys(worker.keys).current()
        self.listener = socket.create_server(("127.0.0.1", worker.port))
        self.stopping = False
        self.seen: list[str] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self._serve, args=(plain,)))
            self.threads[-1].start()

    def _serve(self, plain: socket.socket) -> None:
        deadline = time.monotonic() + 20
        try:
            channel = Channel(stream.TlsStream(plain, self.keys.server, "x", deadline=deadline))
            channel.receive_json(deadline)
            channel.send_json({"protocol": 1, "instance": "fake"}, deadline)
            while self._answer(channel, channel.receive_json(deadline), deadline):
                pass
        except (RingError, OSError):
            pass
        finally:
            plain.close()

    def _answer(self, channel: Channel, request: dict[str, Any], deadline: float) -> bool:
        self.seen.append(request["type"])
        header = self.state.description.header
        if request["type"] == "holdings":
            entry = [
                header.step,
                header.run,
                header.rank,
                header.world_size,
                self.state.description.meta.replicated,
                True,
            ]
            channel.send_json({"holdings": [entry]}, deadline)
            return True
        if request["type"] == "describe":
            data = self.state.description.to_bytes()
            channel.send_json({"bytes": len(data), "tensors": len(self.state.description.held)}, deadline)
            channel.send(data, deadline)
            return True
        return self.script(channel, request, self.state)

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(timeout=20)
            assert not thread.is_alive()


@contextmanager
def fake_peer(worker: Worker, script: Script, state: State) -> Iterator[FakePeer]:
    header = write_state(worker.slot(1, state.rank), state, sequence=state.step)
    peer = FakePeer(worker, LocalSlots(worker.shm).describe(state.rank, 1, header), script)
    try:
        yield peer
    finally:
        peer.stop()


def send(channel: Channel, request: dict[str, Any], state: HeldState, change: Callable[[bytes], bytes]) -> None:
    data = b"".join(bytes(state.tensor(number)) for number in request["tensors"])
    deadline = time.monotonic() + 10
    channel.send_json({"bytes": len(data)}, deadline)
    channel.send(change(data), deadline)


def breaks_off(channel: Channel, request: dict[str, Any], state: HeldState) -> bool:
    send(channel, request, state, lambda data: data[: len(data) // 2])
    return False


def corrupts(channel: Channel, request: dict[str, Any], state: HeldState) -> bool:
    send(channel, request, state, lambda data: bytes([data[0] ^ 1]) + data[1:])
    return True


def stalls(channel: Channel, request: dict[str, Any], state: HeldState) -> bool:
    send(channel, request, state, lambda data: data[: len(data) // 2])
    time.sleep(1.0)
    return False


def refuses(channel: Channel, request: dict[str, Any], state: HeldState) -> bool:
    channel.send_json({"error": {"kind": "missing", "message": "gone"}}, time.monotonic() + 5)
    return True


def sends_more(channel: Channel, request: dict[str, Any], state: HeldState) -> bool:
    channel.send_json({"bytes": 2**50}, time.monotonic() + 5)
    return True


def sends_garbage(channel: Channel, request: dict[str, Any], state: HeldState) -> bool:
    channel.send(struct.pack("<I", 7) + b"[1,2,3]", time.monotonic() + 5)
    return True


def announces_too_much(channel: Channel, request: dict[str, Any], state: HeldState) -> bool:
    channel.send(struct.pack("<I", MAX_JSON_BYTES + 1), time.monotonic() + 5)
    return True


FAULTS = [breaks_off, corrupts, stalls, refuses, sends_more, sends_garbage, announces_too_much]


@pytest.mark.parametrize("fault", FAULTS)
def test_another_peer_takes_over(workers: list[Worker], fault: Script) -> None:
    """A replicated state is at workers 1 and 2; worker 1 goes wrong in the middle."""
    state = State(1, 1, 3, replicated=True)
    workers[2].save(State(1, 2, 3, replicated=True))
    workers[1].stop()
    with fake_peer(workers[1], fault, state) as fake:
        found, tensors = restore(workers[0], 1, 7)
        assert tensors["model/shared"] == expect(state)["model/shared"]
        assert set(found.sources) == {"peer"}
        assert fake.seen[-1] in ("read", "describe", "holdings")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_storage_takes_over(workers: list[Worker], fault: Script, helpers: Any) -> None:
    """What only worker 1 has in memory is in the storage, too."""
    states = [State(1, rank, 3) for rank in range(3)]
    commit_states(workers[0], states, helpers)
    workers[1].stop()
    with fake_peer(workers[1], fault, states[1]):
        found, tensors = restore(workers[0], 1, 1)
        assert tensors == expect(states[1])
        assert "storage" in found.sources
        assert found.committed


def attack(worker: Worker, data: bytes, *, hello: bool = True) -> bytes:
    """Raw bytes behind a valid handshake; returns what comes back until the end."""
    material = RingKeys(worker.keys).current()
    deadline = time.monotonic() + 5
    plain = socket.create_connection(("127.0.0.1", worker.port), timeout=5)
    with material.client.wrap_socket(plain, server_hostname=SERVER_NAME) as tls:
        tls.settimeout(max(deadline - time.monotonic(), 0.1))
        if hello:
            message = {
                "type": "hello",
                "protocol": 1,
                "token": material.tokens[0],
                "job": JOB_UID,
                "attempt": 1,
                "worker": 0,
            }
            body = json.dumps(message).encode()
            tls.sendall(struct.pack("<I", len(body)) + body)
        answer = b""
        try:
            tls.sendall(data)
            while piece := tls.recv(65536):
                answer += piece
        except OSError:
            pass
        return answer


def frame(value: object) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 100,
        struct.pack("<I", 2**32 - 1),
        frame(b"[" * 100_000),
        frame(b"\xff\xfe"),
        frame(b"null"),
        frame({"type": "delete"}),
        frame({"type": "holdings", "extra": 1}),
        frame({"type": "describe", "step": -1, "run": 1, "rank": 0}),
        frame({"type": "describe", "step": 2**70, "run": 1, "rank": 0}),
        frame({"type": "describe", "step": 1, "run": 1, "rank": "../../etc"}),
        frame({"type": "read", "step": 1, "run": 1, "rank": 0, "tensors": list(range(100_001))}),
        frame({"type": "push", "bytes": 2**60, "tensors": 1, "payload": 0}),
        frame({"type": "push", "bytes": 2**47, "tensors": 1, "payload": 0}),
        frame({"type": "push", "bytes": 300, "tensors": 2**40, "payload": 0}),
        frame({"type": "push", "bytes": 10, "tensors": 100, "payload": 0}),
        frame({"type": "push", "bytes": 300, "tensors": 1, "payload": 2**47}) + b"\0" * 300,
    ],
)
def test_hostile_requests_end_the_connection_and_nothing_else(workers: list[Worker], data: bytes) -> None:
    workers[0].save(State(1, 0, 3))
    answer = attack(workers[0], data)
    assert len(answer) < 2000
    assert b"Traceback" not in answer
    assert workers[0].ring is not None
    assert workers[0].ring._shelf.used_bytes == 0
    workers[2].save(State(1, 2, 3))
    assert workers[0].ring._shelf.used_bytes > 0, "it serves as before"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        frame({"type": "holdings"}),
        frame({"type": "hello"}),
        frame({"type": "hello", "token": "x"}),
    ],
)
def test_without_a_hello_nothing_is_answered(workers: list[Worker], data: bytes) -> None:
    answer = attack(workers[0], data, hello=False)
    assert b"holdings" not in answer
    assert RingKeys(workers[0].keys).current().tokens[0].encode() not in answer


def test_without_a_certificate_nothing_is_read(workers: list[Worker]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def ask() -> bytes:
        plain = socket.create_connection(("127.0.0.1", workers[0].port), timeout=5)
        with plain, context.wrap_socket(plain) as tls:
            tls.sendall(frame({"type": "hello"}))
            return tls.recv(10)

    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        ask()


def test_too_many_strangers_are_turned_away_and_workers_come_in_again(workers: list[Worker]) -> None:
    strangers = [socket.create_connection(("127.0.0.1", workers[1].port), timeout=5) for _ in range(MAX_STRANGERS + 20)]
    deadline = time.monotonic() + 5
    assert workers[1].ring is not None
    server = workers[1].ring._server
    while server._strangers < MAX_STRANGERS and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server._strangers == MAX_STRANGERS
    assert len(server._open) < MAX_CONNECTIONS
    for stranger in strangers:
        stranger.close()
    while server._strangers and time.monotonic() < deadline:
        time.sleep(0.01)
    workers[0].save(State(1, 0, 3))
    assert workers[1].ring._shelf.used_bytes > 0


def push_like(
    worker: Worker, state: State, tmp_path: Path, change: Callable[[bytearray], None], *, cut: int = 0
) -> None:
    """Push a state with changed payload bytes; `cut`: break off so many before the end."""
    header = write_state(tmp_path / "forged" / "slot-0", state, sequence=1)
    slot = SlotWriter.open(tmp_path / "forged" / "slot-0")
    meta = slot.meta(header)
    payload = slot.payload(header)
    raw = [payload[spec.offset : spec.offset + spec.bytes] for spec in meta.tensors]
    meta_json = slot.memory[header.meta_offset : header.meta_offset + header.meta_bytes]
    held = tuple(not spec.replicated for spec in meta.tensors)
    description = Description(header, meta_json, meta, tuple(map(xxhash.xxh3_128_digest, raw)), held)
    body = bytearray(b"".join(bytes(part) for part, flag in zip(raw, held, strict=True) if flag))
    size = len(body)
    change(body)
    material = RingKeys(worker.keys).current()
    deadline = time.monotonic() + 5
    channel = connect("127.0.0.1", worker.port, material.client, SERVER_NAME, deadline)
    try:
        hello = {"type": "hello", "protocol": 1, "token": material.tokens[0], "job": JOB_UID, "attempt": 1, "worker": 0}
        channel.send_json(hello, deadline)
        channel.receive_answer(deadline)
        data = description.to_bytes()
        channel.send_json({"type": "push", "bytes": len(data), "tensors": len(held), "payload": size}, deadline)
        channel.receive_answer(deadline)
        channel.send(data, deadline)
        channel.receive_answer(deadline)
        channel.send(bytes(body[: len(body) - cut]), deadline)
        if not cut:
            channel.receive_answer(deadline)
    finally:
        channel.close()


def test_a_push_that_is_damaged_or_breaks_off_leaves_the_older_parts(workers: list[Worker], tmp_path: Path) -> None:
    for step in (1, 2):
        push_like(workers[1], State(step, 0, 3), tmp_path, lambda body: None)
    with pytest.raises(RefusedError, match="does not match its hash"):
        push_like(workers[1], State(3, 0, 3), tmp_path, lambda body: body.__setitem__(7, body[7] ^ 1))
    assert held(workers[1]) == {(0, 2)}
    push_like(workers[1], State(4, 0, 3), tmp_path, lambda body: None, cut=100)
    assert workers[1].ring is not None
    deadline = time.monotonic() + 5
    while workers[1].ring._shelf._coming and time.monotonic() < deadline:
        time.sleep(0.01)
    assert held(workers[1]) == {(0, 2)}
    push_like(workers[1], State(5, 0, 3), tmp_path, lambda body: None)
    assert held(workers[1]) == {(0, 2), (0, 5)}


def test_a_stalled_push_ends_and_frees_its_memory(workers: list[Worker], tmp_path: Path) -> None:
    def stall(body: bytearray) -> None:
        del body[100:]

    with pytest.raises(CheckpointError):
        push_like(workers[1], State(1, 0, 3), tmp_path, stall)
    assert workers[1].ring is not None
    deadline = time.monotonic() + 5
    while workers[1].ring._shelf._coming and time.monotonic() < deadline:
        time.sleep(0.01)
    assert workers[1].ring._shelf.used_bytes == 0


def test_descriptions_are_bounded_and_checked(workers: list[Worker]) -> None:
    workers[0].save(State(1, 0, 3))
    assert workers[0].ring is not None
    state = workers[0].ring._slots.find(0, Generation(1, 1))
    assert state is not None
    good = state.description.to_bytes()
    tensors = len(state.description.held)
    assert parse_description(memoryview(good), tensors, "x").is_same(state.description)
    for cut in range(0, len(good), 37):
        with pytest.raises(FormatError):
            parse_description(memoryview(good[:cut]), tensors, "x")
    for count in (-1, 0, tensors - 1, tensors + 1, 2**40):
        with pytest.raises(FormatError):
            parse_description(memoryview(good), count, "x")
    digests = len(good) - tensors * 17
    for position in range(0, digests, 11):
        bad = bytearray(good)
        bad[position] ^= 0x10
        with pytest.raises(FormatError):
            parse_description(memoryview(bad), tensors, "x")


def test_a_killed_peer_costs_a_moment_not_the_restore(workers: list[Worker]) -> None:
    """Its port is closed: nobody waits for it."""
    workers[1].save(State(1, 1, 3, replicated=True))
    workers[2].save(State(1, 2, 3, replicated=True))
    workers[1].stop()
    started = time.monotonic()
    assert set(restore(workers[0], 1, 5)[0].sources) == {"peer"}
    assert time.monotonic() - started < 5
    tell(workers[:1], number=2)
