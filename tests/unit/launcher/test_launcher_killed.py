"""kill -9 of the launcher, and what the next one makes of it."""

import json
import os
import random
import signal
import subprocess
import sys
import time

from sternpost_launcher.processes import boot_id, read_process

# Writes its pid and attempt to a file of its own: a second run of one attempt would show.
RANK = (
    "import os, time\na = os.environ['STERNPOST_ATTEMPT']\nopen(f'ran-{a}-{os.getpid()}', 'w').close()\ntime.sleep(600)"
)


def kill(process):
    process.kill()
    process.wait(10)


def test_successor_ends_the_ranks_and_waits_for_the_next_attempt(pod, until):
    first = pod.start_python(RANK)
    identifier = pod.order(1, ranks=2)
    pod.reaches("running", 1)
    until(lambda: len(list(pod.scratch.glob("ran-1-*"))) == 2, "both ranks have started")
    kill(first)
    assert len(pod.left()) == 2
    second = pod.start_python(RANK)
    status = pod.reaches("failed", 1)
    assert status["pid"] == second.pid
    assert status["message"] == f"launcher was restarted while attempt {identifier} ran"
    assert pod.left() == []
    pod.order(2, "hold")
    held = pod.reaches("waiting", 2)
    assert held["terminatedAt"] >= status["ranks"][0]["exitedAt"] - 0.1
    pod.order(2)
    pod.reaches("running", 2)
    assert len(list(pod.scratch.glob("ran-1-*"))) == 2


def test_a_recycled_pid_is_never_killed(pod):
    bystander = subprocess.Popen(["/bin/sleep", "600"])
    try:
        pod.order(1)
        started = {
            "attempt": "1-0abc0001",
            "number": 1,
            "worker": 0,
            "pid": 1,
            "bootId": boot_id(),
            "outcome": "",
            "message": "",
            "ranks": [
                {
                    "rank": 0,
                    "localRank": 0,
                    "pid": bystander.pid,
                    "startTime": read_process(bystander.pid).start_time - 1,
                }
            ],
        }
        (pod.control / "started.json").write_text(json.dumps(started))
        pod.start_python(RANK)
        pod.reaches("failed", 1)
        pod.order(2, "hold")
        pod.reaches("waiting", 2)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_success_is_remembered(pod, until):
    # A grandchild that ignores SIGTERM keeps the launcher from ending between its ranks' end and its own.
    grandchild = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "open('ready', 'w').write('1'); time.sleep(600)"
    )
    script = (
        f"import os, subprocess, sys, time; subprocess.Popen([sys.executable, '-S', '-c', {grandchild!r}])\n"
        "while not os.path.exists('ready'): time.sleep(0.01)"
    )
    first = pod.start_python(script)
    identifier = pod.order(1, graceSeconds=60)
    pod.reaches("succeeded", 1)
    kill(first)
    second = pod.start_python(script, STERNPOST_GRACE_SECONDS="0.2")
    assert second.wait(15) == 0
    status = pod.status()
    assert (status["state"], status["attempt"]) == ("succeeded", identifier)
    assert status["ranks"][0]["exitCode"] == 0
    assert pod.left() == []


def test_descendants_are_found_without_a_subreaper(pod):
    # Where the launcher cannot adopt orphans, their environment tells whose they are.
    grandchild = "import os, time; os.setsid(); open('ready', 'w').write(str(os.getpid())); time.sleep(600)"
    middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {grandchild!r}])"
    script = f"import subprocess, sys, time; subprocess.run([sys.executable, '-S', '-c', {middle!r}]); time.sleep(600)"
    without_ctypes = (
        f"import sys; sys.modules['ctypes'] = None; sys.path.insert(0, {str(pod.launcher)!r});"
        f"from sternpost_launcher.command_line import main; sys.exit(main(['--', sys.executable, '-c', {script!r}]))"
    )
    with (pod.scratch / "err").open("ab") as err:
        process = subprocess.Popen([pod.python, "-c", without_ctypes], env=pod.environment, cwd=pod.scratch, stderr=err)
    pod.processes.append(process)
    pod.order(1)
    assert int(pod.file("ready")) in pod.left()
    pod.order(2, "hold")
    pod.reaches("waiting", 2)
    assert pod.left() == []
    assert "cannot be adopted" in pod.err()


def test_failure_is_remembered_with_its_exit_codes(pod):
    first = pod.start_python("import sys; sys.exit('out of ideas')")
    pod.order(1)
    before = pod.reaches("failed", 1)
    kill(first)
    pod.start_python(RANK)
    after = pod.reaches("failed", 1)
    assert after["message"] == before["message"]
    assert after["ranks"] == before["ranks"]


def test_unreadable_record_never_runs_an_attempt_twice(pod):
    (pod.control / "started.json").write_text('{"attempt": "1-')
    pod.order(1)
    pod.start_python(RANK)
    status = pod.reaches("failed", 1)
    assert "cannot tell whether attempt 1-0abc0001 ran here already" in status["message"]
    pod.order(2)
    pod.reaches("running", 2)
    assert list(pod.scratch.glob("ran-1-*")) == []


def test_newer_attempt_starts_at_once_after_a_restart(pod):
    first = pod.start_python(RANK)
    pod.order(1)
    pod.reaches("running", 1)
    kill(first)
    pod.order(2)
    pod.start_python(RANK)
    pod.reaches("running", 2)
    assert len(pod.left()) == 1


def test_killed_at_random_moments_leaves_one_set_of_ranks(pod, until):
    moments = random.Random(7)  # noqa: S311 - moments, not secrets
    for number in range(1, 7):
        process = pod.start_python(RANK)
        pod.order(number, ranks=2)
        # Real time, on purpose: the moments fall into reading, preflight, starting and running alike.
        time.sleep(moments.uniform(0.05, 0.6))
        kill(process)
    pod.start_python(RANK)
    until(lambda: pod.status()["state"] in ("failed", "running") and pod.status()["attemptNumber"] == 6, "a verdict")
    pod.order(7, ranks=2)
    pod.reaches("running", 7)
    until(lambda: len(pod.left()) == 2, "only the ranks of attempt 7")
    for number in range(1, 8):
        assert len(list(pod.scratch.glob(f"ran-{number}-*"))) <= 2


def test_children_that_it_did_not_start_are_spared(pod):
    # As below a shell that starts something in the background and then becomes the launcher.
    script = 'sleep 600 & echo $! > stranger; exec "$@"'
    command = ["/bin/sh", "-c", script, "sh", pod.python, str(pod.launcher), "--", "true"]
    process = subprocess.Popen(command, env=pod.environment, cwd=pod.scratch, stderr=subprocess.DEVNULL)
    pod.processes.append(process)
    pod.order(1)
    assert process.wait(15) == 0
    stranger = int(pod.file("stranger"))
    assert read_process(stranger) is not None
    os.kill(stranger, signal.SIGKILL)


def test_runs_below_a_launcher_that_is_not_the_first_process(pod):
    """Its own ancestors carry the rank's mark in nested use, and are spared."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import subprocess, sys; sys.exit(subprocess.call({[pod.python, str(pod.launcher), '--', 'true']!r}))",
        ],
        env={**pod.environment, "STERNPOST_ATTEMPT": "outer"},
        cwd=pod.scratch,
        stderr=subprocess.DEVNULL,
    )
    pod.processes.append(process)
    pod.order(1)
    assert process.wait(15) == 0
    assert pod.status()["state"] == "succeeded"
