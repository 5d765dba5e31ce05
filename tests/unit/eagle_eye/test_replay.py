"""Replay: the very same judge over a recording, and recordings from whoever hates it."""

from __future__ import annotations

import io
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sternpost_eagle_eye.cli import app
from sternpost_eagle_eye.replay import replay_text, replay_vectors
from sternpost_eagle_eye.replay.clock import RecordingClock
from sternpost_eagle_eye.replay.player import Player
from sternpost_eagle_eye.replay.recording import Recording

WORKERS = 6


def page(worker: int, step: int, *, compute: float = 0.4, extra: str = "") -> str:
    rank = f'{{rank="{worker}"}}'
    return (
        f'sternpost_step{rank} {step}\nsternpost_loss{rank} 2.5\nsternpost_phase{{phase="train",rank="{worker}"}} 1\n'
        f"sternpost_step_seconds_sum{rank} {step * 0.5}\nsternpost_step_seconds_count{rank} {step}\n"
        f"sternpost_compute_seconds_sum{rank} {step * compute}\nsternpost_compute_seconds_count{rank} {step}\n{extra}"
    )


def line(t: float, worker: int, text: str, node: str | None = None) -> str:
    return json.dumps({"t": t, "worker": worker, "node": node or f"n{worker}", "metrics": text})


def healthy(seconds: int, *, start: float = 1000.0, workers: int = WORKERS, first_step: int = 10) -> list[str]:
    return [
        line(start + second + worker / 100, worker, page(worker, first_step + 2 * second))
        for second in range(seconds)
        for worker in range(workers)
    ]


def without(lines: list[str], worker: int, since: float) -> list[str]:
    """The worker falls silent, and the others stand still."""
    kept, last = [], 0
    for text in lines:
        value = json.loads(text)
        if value["t"] < since:
            last = value["metrics"]
            kept.append(text)
        elif value["worker"] != worker:
            step = int(last.split("\n")[0].rsplit(" ", 1)[1])
            kept.append(line(value["t"], value["worker"], page(value["worker"], step)))
    return kept


def counted(lines: list[str]) -> tuple[list, dict[str, int]]:
    recording, player = Recording(io.BytesIO("".join(f"{each}\n" for each in lines).encode())), Player()
    found = [verdict for item in recording for verdict in player.feed(*item)] + player.finish()
    return found, dict(recording.dropped + player.dropped)


def test_a_worker_that_is_gone_is_named_within_three_seconds():
    (verdict, *more) = replay_text(without(healthy(60), 3, 1030.0))
    assert (verdict.kind, verdict.worker, verdict.node) == ("worker-gone", 3, "n3")
    assert 1030 <= verdict.t <= 1033.1
    assert not more


def test_the_command_prints_one_object_a_line(tmp_path):
    file = tmp_path / "gone.jsonl"
    file.write_text("\n".join([*without(healthy(60), 3, 1030.0), "{torn"]))
    told = CliRunner().invoke(app, ["replay", str(file), "--json"])
    assert told.exit_code == 0
    (anomaly,) = [json.loads(text) for text in told.stdout.splitlines()]
    assert set(anomaly) == {"t", "kind", "worker", "node", "confidence", "evict", "evidence"}
    assert "dropped: 1 not JSON" in told.stderr
    told = CliRunner().invoke(app, ["replay", str(file)])
    assert "worker-gone" in told.stdout
    assert "worker 3 on n3" in told.stdout


def test_a_file_that_is_not_there_is_an_error_in_words(tmp_path):
    told = CliRunner().invoke(app, ["replay", str(tmp_path / "none.jsonl")])
    assert told.exit_code == 2
    assert "cannot be read" in told.stderr


def test_nothing_from_before_a_restart_counts():
    before = healthy(30)
    restart = json.dumps({"t": 1030.5, "event": "restart"})
    after = healthy(60, start=1031.0, workers=WORKERS - 1)  # worker 5 has no successor
    assert replay_text([*before, restart, *after]) == []


def test_pages_of_an_attempt_before_the_restart_are_dropped():
    def info(number):
        return f'sternpost_attempt_info{{attempt="{number}-a",rank="0"}} 1\n'

    lines = [
        line(1000.0, 0, page(0, 10, extra=info(1))),
        json.dumps({"t": 1000.5, "event": "restart"}),
        line(1001.0, 0, page(0, 11, extra=info(1))),
        line(1002.0, 0, page(0, 11, extra=info(2))),
    ]
    assert counted(lines)[1] == {"of an attempt before the restart": 1}


def test_the_same_as_text_and_as_vectors():
    lines = without(healthy(60), 3, 1030.0)
    recording = Recording(io.BytesIO("".join(f"{each}\n" for each in lines).encode()))
    assert replay_vectors(list(recording)) == replay_text(lines)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"t": 1010, "worker": 1, "metr', "not JSON"),
        ("[1, 2]", "not an object"),
        ("[" * 100_000, "not JSON"),
        ('{"t": NaN, "worker": 1, "metrics": ""}', "no finite time"),
        ('{"t": 1e999, "worker": 1, "metrics": ""}', "no finite time"),
        ('{"t": true, "worker": 1, "metrics": ""}', "no finite time"),
        ('{"worker": 1, "metrics": ""}', "no finite time"),
        ('{"t": 1010, "worker": -1, "metrics": ""}', "no worker number"),
        ('{"t": 1010, "worker": "1", "metrics": ""}', "no worker number"),
        ('{"t": 1010, "worker": 1, "node": 7, "metrics": ""}', "node is no name"),
        ('{"t": 1010, "worker": 1}', "neither metrics nor log"),
        ('{"t": 1010, "event": "party"}', "unknown event"),
        (line(1010, 1, page(1, 30), node="elsewhere"), "another node"),
        (line(1010.01, 1, page(1, 30)), "duplicate"),
        (line(1003, 1, page(1, 1)), "out of order"),
        (line(900, 77, page(77, 1)), "before the recording's present"),
        (line(1010.9, 1, 'sternpost_step{rank="1"} what\nsternpost_loss{rank="x"} 1\n'), "make no sense"),
    ],
)
def test_what_is_dropped_is_counted_with_its_reason(bad, reason):
    lines = healthy(60)
    at = next(i for i, text in enumerate(lines) if json.loads(text)["t"] > 1010.05)
    found, dropped = counted([*lines[:at], bad, *lines[at:]])
    assert found == []
    assert [key for key in dropped if reason in key], dropped


def test_a_clock_that_jumps_an_hour_hurts_nobody():
    for jump in (3600.0, -3600.0):
        lines = []
        for text in healthy(120):
            value = json.loads(text)
            if value["worker"] == 2 and value["t"] > 1040:
                value["t"] += jump
            lines.append(json.dumps(value))
        assert replay_text(lines) == []


def test_when_all_clocks_jump_the_anomaly_is_in_the_new_time():
    lines = []
    for text in without(healthy(90), 3, 1060.0):
        value = json.loads(text)
        if value["t"] > 1040:
            value["t"] += 3600
        lines.append(json.dumps(value))
    (verdict,) = replay_text(lines)
    assert 4660 <= verdict.t <= 4664


def test_lines_in_no_order_evict_nobody():
    lines = healthy(60)
    random.Random(3).shuffle(lines)  # noqa: S311
    assert not any(verdict.evict for verdict in replay_text(lines))
    by_worker = sorted(healthy(60), key=lambda text: json.loads(text)["worker"])
    assert not any(verdict.evict for verdict in replay_text(by_worker))


def test_a_hundred_thousand_series_and_any_label():
    flood = "".join(f'sternpost_flood{{i="{i}"}} {i}\nDCGM_FI_DEV_GPU_UTIL{{gpu="{i}"}} 5\n' for i in range(50_000))
    odd = 'sternpost_odd{rank="0",l="a \\"quoted\\" \\\\ } { = , \\n é\U0001f600 \x07"} 1\n'
    lines = healthy(40)
    lines[60] = line(1010.0, 0, page(0, 30) + odd + flood)
    found, dropped = counted(lines)
    assert found == []
    assert dropped["samples that make no sense or are too many"] > 90_000


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=60),
            st.fixed_dictionaries(
                {},
                optional={
                    "t": st.one_of(st.floats(), st.integers(990, 1100), st.text(max_size=3)),
                    "worker": st.one_of(st.integers(-2, 9), st.none()),
                    "node": st.one_of(st.sampled_from(["n0", "n1", "é"]), st.integers()),
                    "metrics": st.one_of(
                        st.text(max_size=40),
                        st.builds(
                            lambda worker, step, value: page(worker, step, extra=f"DCGM_FI_DEV_XID_ERRORS {value}\n"),
                            st.integers(0, 9),
                            st.integers(0, 99),
                            st.floats(),
                        ),
                    ),
                    "event": st.sampled_from(["restart", "x"]),
                    "log": st.text(max_size=20),
                },
            ).map(json.dumps),
        ),
        max_size=40,
    )
)
def test_no_recording_breaks_the_reader(lines):
    assert not any(verdict.evict for verdict in counted(lines)[0] if verdict.kind != "hardware")


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-1e9, 1e9)), max_size=60))
def test_the_clock_never_goes_back_and_never_leaps(steps):
    clock, now = RecordingClock(), None
    for worker, t in steps:
        at = clock.place(worker, t)
        if isinstance(at, float):
            assert now is None or now <= at <= now + 60.0
            now = at
