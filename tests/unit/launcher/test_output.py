import os
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_launcher import output
from sternpost_launcher.output import LineSplitter, RankOutput, Sink


@settings(deadline=None, max_examples=150)
@given(st.lists(st.binary(max_size=40).map(lambda piece: piece.replace(b"a", b"\n")), max_size=12), st.integers(1, 9))
def test_splitting_loses_nothing_and_depends_on_no_boundary(pieces, limit):
    before = output.MAX_LINE
    output.MAX_LINE = limit
    try:
        splitter = LineSplitter()
        lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.finish()
    finally:
        output.MAX_LINE = before
    assert all(len(line) <= limit for line in lines)
    content = b"".join(pieces)
    assert b"".join(lines) == content.replace(b"\n", b"")
    if all(len(line) <= limit for line in content.split(b"\n")):
        assert lines == content.split(b"\n")[: len(lines)]


def test_the_end_of_a_killed_rank_s_output_is_read_and_the_tail_is_bounded(until, monkeypatch):
    written = []
    monkeypatch.setattr(output, "_write", lambda descriptor, piece: written.append((descriptor, bytes(piece))))
    sink = Sink()
    rank = RankOutput(sink, b"[a1 r0] ")
    stdout, stderr = rank.open()
    os.write(stdout, b"one\ntw")
    for number in range(30):
        os.write(stderr, f"line {number}\n".encode())
    os.write(stderr, b"y" * 5000)
    assert not rank.closed
    os.close(stdout)
    os.close(stderr)
    until(lambda: rank.closed, "both pipes are read")
    sink.flush(5)
    assert b"".join(piece for descriptor, piece in written if descriptor == 1) == b"[a1 r0] one\n[a1 r0] tw\n"
    lines = rank.tail().split("\n")
    assert len(lines) == 20
    assert lines[0] == "line 11"
    assert lines[-1] == "y" * 512


def test_a_stalled_reader_does_not_stall_the_log(monkeypatch):
    written, stalled, go_on = [], threading.Event(), threading.Event()

    def write(_descriptor, piece):
        stalled.set()
        go_on.wait(20)
        written.append(piece)

    monkeypatch.setattr(output, "_write", write)
    sink = Sink()
    sink.put(1, b"first\n")
    assert stalled.wait(20)
    for number in range(70):
        sink.put_without_waiting(b"%d\n" % number)
    sink.flush(0.01)
    assert written == []
    go_on.set()
    sink.flush(20)
    assert b"[sternpost] 6 log lines were dropped: the reader of the log stalls\n" in written
    assert b"63\n" in written


def test_a_reader_that_is_gone_costs_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    output._write(writer, b"x\n")
    os.set_blocking(writer, False)
    os.close(writer)


def test_a_pipe_that_does_not_block_is_waited_for():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    received = []

    def read() -> None:
        while piece := os.read(reader, 65536):
            received.append(piece)

    thread = threading.Thread(target=read)
    thread.start()
    output._write(writer, b"x" * 1_000_000)
    os.close(writer)
    thread.join(20)
    os.close(reader)
    assert sum(map(len, received)) == 1_000_000
