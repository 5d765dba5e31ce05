"""launcher.json, started.json, the journal, settings, the log, the zipapp and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_launcher.attempt_file import Action, Attempt, Member
from sternpost_launcher.command_line import main
from sternpost_launcher.install import archive, install
from sternpost_launcher.journal import FAILED, SUCCEEDED, Journal
from sternpost_launcher.json_file import UnusableFileError
from sternpost_launcher.log import Log, format_line
from sternpost_launcher.rank_environment import rank_environment
from sternpost_launcher.ranks import describe_exit, describe_killed
from sternpost_launcher.settings import Settings, SettingsError
from sternpost_launcher.started_file import RankRecord, Started, read_started, write_started
from sternpost_launcher.status_file import MAX_MESSAGE_BYTES, State, Status, StatusFile, bounded
from sternpost_launcher.verdict import Verdict
from sternpost_operator.resources.progress import LauncherState

RANKS = [RankRecord(2, 0, 80, 12345), RankRecord(3, 1, 81, 12346, -9, 1764000001.5)]


def test_launcher_json_is_as_the_contract_says(tmp_path):
    file = StatusFile(tmp_path)
    status = Status(State.RUNNING, "3-9f", 3, 1, "", 1.0, 2.0, RANKS, [Verdict("clock", True, "fine")])
    file.write(status, wall=1764000000.0, monotonic=0.0)
    content = json.loads((tmp_path / "launcher.json").read_text())
    assert content.pop("pid") > 0
    assert content == {
        "updatedAt": 1764000000.0,
        "attempt": "3-9f",
        "attemptNumber": 3,
        "worker": 1,
        "state": "running",
        "message": "",
        "terminatedAt": 1.0,
        "startedAt": 2.0,
        "ranks": [
            {"rank": 2, "localRank": 0, "pid": 80, "exitCode": None, "exitedAt": None},
            {"rank": 3, "localRank": 1, "pid": 81, "exitCode": -9, "exitedAt": 1764000001.5},
        ],
        "preflight": [{"check": "clock", "ok": True, "detail": "fine"}],
    }
    assert {state.value for state in State} == {state.value for state in LauncherState} - {"unknown"}


def test_launcher_json_is_written_on_change_and_each_second(tmp_path):
    def written():
        return json.loads((tmp_path / "launcher.json").read_text())["updatedAt"]

    file, status = StatusFile(tmp_path), Status()
    file.write(status, wall=100.0, monotonic=0.0)
    file.write(status, wall=100.5, monotonic=0.5)
    assert written() == 100.0
    status.message = "changed"
    file.write(status, wall=100.6, monotonic=0.6)
    assert written() == 100.6
    file.write(status, wall=101.6, monotonic=1.6)
    assert written() == 101.6


def test_launcher_json_that_cannot_be_written_is_tried_again(tmp_path):
    folder = tmp_path / "control"
    file, status = StatusFile(folder), Status()
    file.write(status, wall=100.0, monotonic=0.0)
    assert "No such file" in file.problem
    folder.mkdir()
    file.write(status, wall=100.1, monotonic=0.1)
    assert file.problem, "not in every turn of the loop"
    file.write(status, wall=101.1, monotonic=1.1)
    assert file.problem == ""


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=30).map(lambda text: text * 100))
def test_messages_are_bounded(message):
    found = bounded(message).encode()
    assert len(found) <= MAX_MESSAGE_BYTES
    if len(message.encode()) > MAX_MESSAGE_BYTES:
        assert found.decode().endswith(message[-100:])


def test_started_json_round_trip_and_garbage(tmp_path):
    assert read_started(tmp_path) is None
    started = Started("3-9f", 3, 1, 71, "boot", RANKS, 1.0, 2.0, 3.0, FAILED, "why")
    write_started(tmp_path, started)
    assert read_started(tmp_path) == started
    whole = json.loads((tmp_path / "started.json").read_text())
    for name, value in [
        ("attempt", 7),
        ("ranks", {}),
        ("ranks", [1]),
        ("number", -1),
        ("outcome", "x"),
        ("goneAt", "x"),
    ]:
        (tmp_path / "started.json").write_text(json.dumps({**whole, name: value}))
        with pytest.raises(UnusableFileError):
            read_started(tmp_path)
    for content in (b"", b"{", b"[]", b"\xff"):
        (tmp_path / "started.json").write_bytes(content)
        with pytest.raises(UnusableFileError):
            read_started(tmp_path)


def test_journal_settles_once_and_carries_the_time_over(tmp_path):
    lines = []
    journal = Journal(tmp_path, Log(lines.append))
    journal.begin(Started("1-a", 1, 0, 71, "boot"))
    journal.settle(SUCCEEDED, "")
    journal.settle(FAILED, "too late")
    assert journal.started.outcome == SUCCEEDED
    journal.note_gone(50.0)
    journal.begin(Started("2-b", 2, 0, 71, "boot"))
    assert journal.last_gone_at == 50.0
    journal.note_gone(60.0)
    assert journal.last_gone_at == 60.0
    assert read_started(tmp_path).terminated_at == 50.0
    assert lines == []
    block = tmp_path / ".started.json.tmp"
    block.mkdir()
    journal.save()
    journal.save()
    assert len(lines) == 1
    block.rmdir()
    journal.settle(FAILED, "why")
    assert read_started(tmp_path).message == "why"


def test_rank_environment_keeps_what_is_set():
    member = Member("p", "u", "a", 1)
    attempt = Attempt(3, "3-a", Action.RUN, "", 2, (member, member), (), "host", 29400)
    inherited = {"PYTHONUNBUFFERED": "", "RANK": "9", "STERNPOST_PORT_METRICS_1": "9401", "STERNPOST_METRICS_PORT": "7"}
    environment = rank_environment(inherited, attempt, 1, 1)
    assert environment["PYTHONUNBUFFERED"] == ""
    assert (environment["RANK"], environment["WORLD_SIZE"], environment["LOCAL_WORLD_SIZE"]) == ("3", "4", "2")
    assert environment["STERNPOST_METRICS_PORT"] == "9401"
    assert "STERNPOST_METRICS_PORT" not in rank_environment(inherited, attempt, 1, 0)


def test_descriptions():
    assert describe_exit(2, 3) == "rank 2 exited with code 3"
    assert describe_exit(2, -11) == "rank 2 was ended by SIGSEGV"
    assert describe_exit(2, -40) == "rank 2 was ended by signal 40"
    assert describe_killed(RANKS, [], 1.0) == ""
    assert describe_killed(RANKS, [80, 90], 1.0).startswith("rank 2 (pid 80), process 90 did not end within 1 s")
    assert "and 6 more" in describe_killed(RANKS, range(10), 1.0)


def test_settings(tmp_path):
    good = {"STERNPOST_CONTROL_DIR": str(tmp_path), "STERNPOST_POD": "gpt-0"}
    assert Settings.from_environment(good).grace_seconds is None
    assert Settings.from_environment({**good, "STERNPOST_GRACE_SECONDS": "2.5"}).grace_seconds == 2.5
    for name, value in [
        ("STERNPOST_CONTROL_DIR", ""),
        ("STERNPOST_CONTROL_DIR", "/no/such/folder"),
        ("STERNPOST_POD", ""),
        ("STERNPOST_GRACE_SECONDS", "soon"),
        ("STERNPOST_GRACE_SECONDS", "nan"),
        ("STERNPOST_GRACE_SECONDS", "-1"),
    ]:
        with pytest.raises(SettingsError, match=name):
            Settings.from_environment({**good, name: value})


def test_log_lines_cannot_be_forged():
    line = format_line(0.5, "info", "two\nlines", {"pod": "gpt-0", "detail": 'a "b"\n[sternpost] x', "none": None})
    assert line == (
        b'[sternpost] 1970-01-01T00:00:00.500Z info two lines pod=gpt-0 detail="a \\"b\\"\\n[sternpost] x" none=None\n'
    )


def test_zipapp_is_the_same_each_time_and_complete(tmp_path, python):
    assert archive() == archive()
    folder = install(tmp_path)
    assert folder == tmp_path / "launcher.pyz"
    nested = install(tmp_path / "a" / "b.pyz")
    assert nested.read_bytes() == folder.read_bytes() == archive()
    assert folder.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "launcher.pyz"]
    with zipfile.ZipFile(folder) as bundle:
        assert bundle.testzip() is None
        assert {entry.date_time for entry in bundle.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    # The zipapp can install itself, also below the oldest Python.
    copied = subprocess.run([python, folder, "install", tmp_path / "copy"], capture_output=True, check=True, text=True)
    assert copied.stdout.strip() == str(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == folder.read_bytes()


def test_install_that_fails_leaves_nothing(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["install", str(tmp_path / "file" / "launcher.pyz")]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no command"),
        (["run", "--"], "no command"),
        (["--", "true"], "STERNPOST_CONTROL_DIR is not set"),
        (["--control-dir", "/no/such", "--", "true"], "is not a folder"),
        (["--what", "--", "true"], "unrecognized"),
    ],
)
def test_usage_errors_exit_2_and_name_the_way_out(arguments, words, capsys, monkeypatch):
    monkeypatch.delenv("STERNPOST_CONTROL_DIR", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_module_can_be_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sternpost_launcher", "install", tmp_path], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip().endswith("launcher.pyz")


def test_times_of_the_log_are_utc():
    stamp = format_line(1764000000.0, "info", "x", {}).split()[1].decode()
    assert datetime.fromisoformat(stamp) == datetime.fromtimestamp(1764000000.0, UTC)
