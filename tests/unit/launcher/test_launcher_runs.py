"""The launcher as a real process: starting, ending and restarting ranks."""

import json
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

WAIT = "import time; time.sleep(600)"


def test_runs_ranks_with_their_environment_and_exits_0(pod):
    names = [
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
        "NODE_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        "PET_NNODES",
        "PET_NPROC_PER_NODE",
        "PET_NODE_RANK",
        "PET_MASTER_ADDR",
        "PET_MASTER_PORT",
        "STERNPOST_ATTEMPT",
        "STERNPOST_ATTEMPT_NUMBER",
        "STERNPOST_WORKER",
        "STERNPOST_METRICS_PORT",
        "STERNPOST_JOB",
        "PYTHONUNBUFFERED",
    ]
    script = (
        f"import os, sys, json; print(json.dumps([os.environ.get(n) for n in {names}]));print('bye', file=sys.stderr)"
    )
    process = pod.start_python(script)
    identifier = pod.order(3, ranks=2)
    assert process.wait(15) == 0
    status = pod.status()
    assert (status["state"], status["attempt"], status["worker"]) == ("succeeded", identifier, 0)
    assert [(rank["rank"], rank["exitCode"]) for rank in status["ranks"]] == [(0, 0), (1, 0)]
    assert status["terminatedAt"] is None
    assert status["startedAt"] <= status["ranks"][0]["exitedAt"] + 0.1
    assert [check["check"] for check in status["preflight"]] == [
        "command", "clock", "memory", "disk", "shared-memory", "rendezvous", "gpu",
    ]  # fmt: skip
    assert all(check["ok"] for check in status["preflight"])
    lines = {line[: len("[a3 r0] ")]: json.loads(line[len("[a3 r0] ") :]) for line in pod.out().splitlines()}
    port = str(pod.port)
    common = [identifier, "3", "0"]
    assert lines["[a3 r0] "] == [
        "0", "2", "0", "2", "0", "0", "127.0.0.1", port, "1", "2", "0", "127.0.0.1", port, *common, "9400", "gpt", "1",
    ]  # fmt: skip
    assert lines["[a3 r1] "] == [
        "1", "2", "1", "2", "0", "0", "127.0.0.1", port, "1", "2", "0", "127.0.0.1", port, *common, None, "gpt", "1",
    ]  # fmt: skip
    assert "[a3 r1] bye" in pod.err()
    assert "[sternpost] 20" in pod.err()


def test_hold_run_hold_run_restarts_in_place(pod, until):
    process = pod.start_python(WAIT)
    pod.reaches("waiting")
    pod.order(1, "hold")
    pod.reaches("waiting", 1)
    pod.order(1)
    first = pod.reaches("running", 1)
    pod.order(2, "hold")
    held = pod.reaches("waiting", 2)
    assert pod.left() == []
    assert first["startedAt"] <= held["terminatedAt"] <= time.time()
    assert held["ranks"] == []
    pod.order(2)
    second = pod.reaches("running", 2)
    assert second["terminatedAt"] == held["terminatedAt"]
    assert second["ranks"][0]["pid"] != first["ranks"][0]["pid"]
    third = pod.order(3)  # without a hold
    third_status = pod.reaches("running", 3)
    assert third_status["terminatedAt"] > held["terminatedAt"]
    assert len(pod.left()) == 1
    pod.order(4, "stop")
    assert process.wait(15) == 0
    assert pod.left() == []
    assert third in (pod.control / "started.json").read_text()


def test_old_foreign_and_torn_attempts_are_ignored(pod, until):
    process = pod.start_python(WAIT)
    pod.order(5)
    running = pod.reaches("running", 5)
    for content in (b"", b"{", b'{"spec": {"number": 6}}', b"[" * 100_000, b"\xff\xfe", b"null"):
        pod.write(content)
        until(lambda: pod.status()["updatedAt"] > time.time() - 0.5, "a heartbeat")
    pod.order(4)
    until(lambda: "old attempt ignored" in pod.err(), "log line")
    pod.order(5, "hold")  # what was before the run
    pod.order(6, jobUid="another")
    until(lambda: "attempt of another job ignored" in pod.err(), "log line")
    pod.order(6, id="../../etc")
    until(lambda: "etc" in pod.err(), "log line")
    later = pod.status()
    assert (later["state"], later["ranks"]) == ("running", running["ranks"])
    assert process.poll() is None
    assert pod.err().count("old attempt ignored") <= 2


def test_spare_idles_then_takes_over_and_absent_waits(pod, member):
    pod.start_python(WAIT)
    with socket.create_server(("127.0.0.1", 0)) as eagle_eye:
        other = member("gpt-1", "uid-1", eagle_eye.getsockname()[1], index=0)
        me = member("gpt-0", "pod-uid")
        pod.order(1, workers=[other], spares=[me])
        status = pod.reaches("idle", 1)
        assert (status["worker"], status["ranks"]) == (None, [])
        pod.order(2, workers=[other, {**me, "index": 1}], ranks=2, worldSize=4)
        status = pod.reaches("running", 2)
        assert status["worker"] == 1
        assert [rank["rank"] for rank in status["ranks"]] == [2, 3]
        assert "peer" in [check["check"] for check in status["preflight"]]
        pod.order(3, workers=[other], spares=[{**me, "uid": "the Pod before this one"}])
        pod.reaches("waiting", 3)
        assert pod.left() == []


def test_failing_rank_ends_the_others_and_says_why(pod):
    script = (
        "import os, sys, time\n"
        "if os.environ['RANK'] == '1':\n"
        "    time.sleep(0.2); print('reading shard 7', file=sys.stderr); raise ValueError('bad batch')\n"
        "time.sleep(600)"
    )
    process = pod.start_python(script)
    pod.order(1, ranks=3)
    status = pod.reaches("failed", 1)
    codes = {rank["rank"]: rank["exitCode"] for rank in status["ranks"]}
    assert codes == {0: -signal.SIGTERM, 1: 1, 2: -signal.SIGTERM}
    assert min(status["ranks"], key=lambda rank: rank["exitedAt"])["rank"] == 1
    assert status["message"].startswith("rank 1 exited with code 1")
    assert "reading shard 7" in status["message"]
    assert status["message"].endswith("ValueError: bad batch")
    assert pod.left() == []
    assert process.poll() is None
    pod.order(2, ranks=3)
    pod.reaches("failed", 2)


@pytest.mark.parametrize(("number", "words"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, "out of memory")])
def test_rank_ended_by_a_signal(pod, number, words):
    pod.start_python(f"import os; os.kill(os.getpid(), {int(number)})")
    pod.order(1)
    status = pod.reaches("failed", 1)
    assert status["ranks"][0]["exitCode"] == -number
    assert words in status["message"]


def test_rank_that_ignores_sigterm_is_killed_after_the_grace_period(pod):
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('ready','w').write('1');"
        "time.sleep(600)"
    )
    pod.start_python(script)
    pod.order(1)
    pod.file("ready")
    begun = time.monotonic()
    pod.order(2, "hold", graceSeconds=0.7)
    status = pod.reaches("waiting", 2)
    assert 0.6 < time.monotonic() - begun < 5
    assert "rank 0" in status["message"]
    assert "did not end within 0.7 s after SIGTERM" in status["message"]
    assert "had to be killed" in pod.err()
    assert pod.left() == []


def test_descendants_end_with_their_rank(pod, until):
    # A child in a session of its own that ignores SIGTERM and whose parent is gone: only the launcher knows it.
    grandchild = (
        "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "open('grandchild', 'w').write(str(os.getpid())); time.sleep(600)"
    )
    middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {grandchild!r}])"
    script = f"import subprocess, sys, time; subprocess.run([sys.executable, '-S', '-c', {middle!r}]); time.sleep(600)"
    pod.start_python(script)
    pod.order(1)
    pid = int(pod.file("grandchild"))
    assert pid in pod.left()
    pod.order(2, "hold", graceSeconds=0.5)
    status = pod.reaches("waiting", 2)
    assert f"process {pid}" in status["message"]
    assert pod.left() == []


def test_success_does_not_wait_for_a_grandchild_that_holds_the_pipes(pod):
    script = "import subprocess, sys; subprocess.Popen(['sleep', '600']); print('last words')"
    process = pod.start_python(script)
    pod.order(1)
    assert process.wait(15) == 0
    assert pod.status()["state"] == "succeeded"
    assert "[a1 r0] last words\n" in pod.out()
    assert pod.left() == []


def test_stopped_rank_can_be_ended(pod, until):
    pod.start_python("import os, signal; open('ready','w').write('1'); os.kill(os.getpid(), signal.SIGSTOP)")
    pod.order(1)
    pod.file("ready")
    pod.order(2, "hold")
    status = pod.reaches("waiting", 2)
    assert status["message"] == ""


def test_heartbeat_goes_on_and_costs_little(pod, until):
    process = pod.start_python(WAIT)
    pod.order(1)
    pod.reaches("running", 1)

    def cpu_seconds() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    spent, begun = cpu_seconds(), time.monotonic()
    beats = set()

    def beat() -> bool:
        beats.add(pod.status()["updatedAt"])
        return len(beats) == 3

    until(beat, "three heartbeats")
    assert cpu_seconds() - spent <= 0.005 * (time.monotonic() - begun) + 0.03  # what the clock tick cannot tell


def test_command_that_cannot_be_executed(pod):
    script = pod.scratch / "train"
    script.write_text("no interpreter is named here")
    script.chmod(0o755)
    pod.start(str(script))
    pod.order(1)
    assert "Exec format error" in pod.reaches("failed", 1)["message"]
    assert pod.left() == []


def test_failed_preflight_names_check_and_way_out_and_the_next_attempt_is_tried(pod):
    pod.start_python("pass")
    with socket.create_server(("127.0.0.1", pod.port)):
        pod.order(1)
        status = pod.reaches("failed", 1)
    assert f"preflight check rendezvous failed: port {pod.port} (MASTER_PORT) is taken" in status["message"]
    assert status["ranks"] == []
    assert status["startedAt"] is None
    pod.order(2)
    assert pod.processes[0].wait(15) == 0


def test_missing_command(pod):
    pod.start("no-such-trainer")
    pod.order(1)
    assert "no-such-trainer is not in PATH" in pod.reaches("failed", 1)["message"]


def test_binary_output_and_endless_lines(pod):
    script = (
        "import sys; sys.stdout.buffer.write(b'\\x00\\xff\\n' + b'x' * 200_000 + b'\\nend without newline');"
        "sys.stderr.buffer.write(b'\\xfe' * 3_000_000); sys.exit(3)"
    )
    pod.start_python(script)
    pod.order(1)
    status = pod.reaches("failed", 1)
    assert len(status["message"].encode()) <= 2048
    lines = (pod.scratch / "out").read_bytes().split(b"\n")
    assert lines[0] == b"[a1 r0] \x00\xff"
    assert [len(line) for line in lines[1:5]] == [65536 + 8, 65536 + 8, 65536 + 8, 200_000 - 3 * 65536 + 8]
    assert lines[5:] == [b"[a1 r0] end without newline", b""]


def test_full_control_folder_is_not_fatal(pod, until):
    process = pod.start_python("import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)")
    pod.order(1)
    pod.reaches("running", 1)
    # A folder in place of the temporary file: writing fails, as on a full disk, also for root.
    blocks = [pod.control / ".launcher.json.tmp", pod.control / ".started.json.tmp"]
    for block in blocks:
        until(lambda block=block: _make_folder(block), "a moment without a temporary file")
    until(lambda: "launcher.json cannot be written" in pod.err(), "log line")
    assert process.poll() is None
    for block in blocks:
        block.rmdir()
    until(lambda: pod.status()["updatedAt"] > time.time() - 0.5, "a heartbeat")
    (pod.scratch / "go").touch()
    assert process.wait(15) == 0


def _make_folder(path) -> bool:
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def test_works_under_the_current_interpreter_too(pod, launcher):
    pod.python = sys.executable
    process = pod.start_python("print('hello')")
    pod.order(1)
    assert process.wait(15) == 0
    assert "[a1 r0] hello" in pod.out()


def test_a_worker_that_is_done_waits_until_all_are_and_can_run_once_more(pod):
    process = pod.start_python("pass")
    pod.order(1, complete=False)
    pod.reaches("succeeded", 1)
    pod.order(2, complete=False)  # another worker had failed
    pod.reaches("succeeded", 2)
    assert process.poll() is None
    pod.order(2, complete=True)
    assert process.wait(15) == 0
