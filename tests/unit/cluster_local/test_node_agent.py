"""The agent with real processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

from sternpost_operator.cluster.local.node_process import kill_node, node_processes, start_node, stop_node
from sternpost_operator.cluster.local.processes import container_processes

Machine = Any

FOREVER = "while true; do sleep 0.05; done"
SLEEP = "exec sleep 600"


def test_order_of_init_sidecar_main_and_end(machine: Machine) -> None:
    journal = machine.paths.state_dir / "journal"

    def noted(name: str) -> str:
        return f"echo {name} >> {journal}"

    machine.start()
    machine.create(
        "gpt-0",
        # The second sidecar counts as started before its first line has run; only after that has it set its trap.
        machine.shell("trainer", f"until grep -q two {journal}; do sleep 0.02; done; {noted('trainer')}"),
        init=(
            machine.shell("first", f"{noted('first')}; sleep 0.2; {noted('first done')}"),
            machine.sidecar("one", f"trap '{noted('one ends')}; exit 0' TERM; {noted('one')}; {FOREVER}"),
            machine.shell("second", f"sleep 0.2; {noted('second')}"),
            machine.sidecar("two", f"trap '{noted('two ends')}; exit 0' TERM; {noted('two')}; sleep 0.2; {FOREVER}"),
        ),
    )
    machine.wait_for(lambda: machine.phase("gpt-0") == "Succeeded")
    lines = journal.read_text().splitlines()
    assert lines[:3] == ["first", "first done", "one"]
    assert sorted(lines[3:6]) == ["second", "trainer", "two"]
    assert lines[-2:] == ["two ends", "one ends"]
    assert machine.container_status("gpt-0")["state"]["terminated"]["exitCode"] == 0


def test_failing_trainer_is_restarted_and_counted(machine: Machine) -> None:
    machine.start()
    script = "echo run; test -e done && exit 0; touch done; kill -9 $$$$"  # "$$" is a dollar, as in Kubernetes
    machine.create("gpt-0", machine.shell("trainer", script, workingDir=str(machine.paths.state_dir)))
    machine.wait_for(lambda: machine.phase("gpt-0") == "Succeeded")
    trainer = machine.container_status("gpt-0")
    assert trainer["restartCount"] == 1
    assert trainer["lastState"]["terminated"] | {"startedAt": 0, "finishedAt": 0} == {
        "exitCode": 137,
        "signal": 9,
        "reason": "Error",
        "startedAt": 0,
        "finishedAt": 0,
    }
    assert machine.log("gpt-0") == "run\nrun\n"


def test_restart_policy_never_fails_the_pod(machine: Machine) -> None:
    machine.start()
    machine.create("gpt-0", machine.shell("trainer", "exit 3"), restartPolicy="Never")
    machine.wait_for(lambda: machine.phase("gpt-0") == "Failed")
    assert machine.container_status("gpt-0")["state"]["terminated"]["exitCode"] == 3


def test_killed_sidecar_and_failing_init_are_started_again(machine: Machine) -> None:
    machine.start()
    flaky = "test -e tried && exit 0; touch tried; exit 1"
    machine.create(
        "gpt-0",
        machine.shell("trainer", SLEEP),
        init=(machine.shell("flaky", flaky, workingDir=str(machine.paths.state_dir)), machine.sidecar("side", SLEEP)),
    )
    machine.wait_for(lambda: machine.phase("gpt-0") == "Running")
    assert machine.container_status("gpt-0", "flaky")["restartCount"] == 1
    [process] = container_processes(machine.paths.state_id, "uid-of-gpt-0", "side")
    os.kill(process.pid, signal.SIGKILL)
    machine.wait_for(lambda: machine.container_status("gpt-0", "side").get("restartCount") == 1)
    side = machine.wait_for(
        lambda: (
            "running" in machine.container_status("gpt-0", "side")["state"]
            and machine.container_status("gpt-0", "side")
        )
    )
    assert side["lastState"]["terminated"]["signal"] == 9
    assert machine.container_status("gpt-0")["restartCount"] == 0


def test_all_processes_of_a_container_end_with_its_first_one(machine: Machine) -> None:
    machine.start()
    machine.create("gpt-0", machine.shell("trainer", "setsid sleep 600 & sleep 600 & echo up; exec sleep 600"))
    machine.wait_for(lambda: machine.log("gpt-0") == "up\n")

    def processes() -> list[Any]:
        return container_processes(machine.paths.state_id, "uid-of-gpt-0", "trainer")

    before = machine.wait_for(lambda: len(processes()) == 3 and processes())
    pid = int(machine.container_status("gpt-0")["containerID"].removeprefix("process://"))
    os.kill(pid, signal.SIGKILL)
    machine.wait_for(lambda: machine.container_status("gpt-0").get("restartCount") == 1)
    machine.wait_for(lambda: len(processes()) == 3)
    assert not set(before) & set(processes())


def test_deletion_grants_grace_then_kills_and_sidecars_end_last(machine: Machine) -> None:
    journal = machine.paths.state_dir / "journal"
    machine.start()
    machine.create(
        "gpt-0",
        machine.shell("trainer", f"trap '' TERM; echo up; {FOREVER}"),
        init=(machine.sidecar("flush", f"trap 'echo flushed > {journal}; exit 0' TERM; {FOREVER}"),),
    )
    machine.wait_for(lambda: machine.log("gpt-0") == "up\n")
    started = time.monotonic()
    machine.mark_deleted("gpt-0", grace=0.5)
    machine.wait_for(lambda: not (machine.paths.objects / "pods" / "gpt-0").exists())
    assert 0.5 <= time.monotonic() - started < 5
    assert journal.read_text() == "flushed\n"
    assert container_processes(machine.paths.state_id, "uid-of-gpt-0", "trainer") == []
    assert not (machine.paths.node_scratch("node-1") / "uid-of-gpt-0").exists()


def test_forced_removal_ends_at_once_and_leaves_the_successor_alone(machine: Machine) -> None:
    machine.start()
    machine.create("gpt-0", machine.shell("trainer", f"trap '' TERM; {FOREVER}"))
    machine.wait_for(lambda: machine.phase("gpt-0") == "Running")
    assert machine.store.remove_pod("gpt-0", "uid-of-gpt-0")
    machine.create("gpt-0", machine.shell("trainer", SLEEP), uid="successor")
    machine.wait_for(
        lambda: machine.reported("gpt-0").get("uid") == "successor" and machine.phase("gpt-0") == "Running"
    )
    machine.wait_for(lambda: not container_processes(machine.paths.state_id, "uid-of-gpt-0", "trainer"))
    assert machine.store.pod("gpt-0")["metadata"]["uid"] == "successor"


def test_volumes_ports_variables_and_secrets(machine: Machine) -> None:
    machine.store.put("secrets", "gpt-token", {"data": {"token": "czNjcmV0"}}, secret=True)
    host = machine.paths.state_dir / "host"
    host.mkdir()
    env = [
        {"name": "STERNPOST_PORT_EAGLE_EYE", "value": "9470"},
        {"name": "STERNPOST_PORT_RENDEZVOUS", "value": "29400"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "gpt-token", "key": "token"}}},
        {"name": "SHM", "value": "/sternpost/shm"},
        {"name": "URI", "value": "file:///data/x"},
        {"name": "STERNPOST_CONTROL_PLANE", "value": machine.paths.control_plane},
    ]
    mounts = [
        {"name": "shm", "mountPath": "/sternpost/shm"},
        {"name": "token", "mountPath": "/sternpost/token"},
        {"name": "data", "mountPath": "/data"},
        {"name": "host", "mountPath": "/host"},
    ]
    volumes = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "token", "secret": {"secretName": "gpt-token", "defaultMode": 0o444}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "shared"}},
        {"name": "host", "hostPath": {"path": str(host)}},
    ]
    script = (
        'echo "$NODE $TOKEN $SHM $URI $GLOO_SOCKET_IFNAME"; echo "$STERNPOST_PORT_EAGLE_EYE $STERNPOST_PORT_RENDEZVOUS $0";'
        " cat /sternpost/token/token > /host/copy; touch $SHM/in-memory; python3 -c 'import sternpost_operator'; "
        + SLEEP
    )
    ports = [{"name": "eagle-eye", "containerPort": 9470}]
    trainer = {**machine.shell("trainer", script), "env": env, "volumeMounts": mounts, "ports": ports}
    trainer["args"] = ["--port=$(STERNPOST_PORT_EAGLE_EYE)"]
    machine.start()
    machine.create("gpt-0", trainer, volumes=volumes)
    machine.wait_for(lambda: machine.log("gpt-0").count("\n") == 2)
    first, second = machine.log("gpt-0").splitlines()
    memory = machine.paths.node_memory("node-1") / "uid-of-gpt-0" / "shm"
    assert first == f"node-1 s3cret {memory} file://{machine.paths.volumes / 'shared'}/x lo"
    reported = machine.reported("gpt-0")["ports"]
    assert second == f"{reported['eagle-eye']} {reported['rendezvous']} --port={reported['eagle-eye']}"
    assert len({9470, 29400, *reported.values()}) == 4
    machine.wait_for((memory / "in-memory").exists)
    assert (host / "copy").read_text() == "s3cret"
    [secret_file] = machine.paths.node_scratch("node-1").glob("*/volumes/token/token")
    assert stat.S_IMODE(secret_file.stat().st_mode) & 0o077 == 0
    machine.mark_deleted("gpt-0")
    machine.wait_for(lambda: not (machine.paths.objects / "pods" / "gpt-0").exists())
    assert not memory.exists()
    assert not list(machine.paths.ports.iterdir())


def test_what_one_machine_cannot_do_fails_the_pod_with_a_reason(machine: Machine) -> None:
    machine.start()
    trainer = machine.shell("trainer", SLEEP)
    too_much = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "900Ti"}}]
    machine.create("memory-0", trainer, volumes=too_much)
    machine.create("config-0", trainer, volumes=[{"name": "c", "configMap": {"name": "c"}}])
    machine.create("nothing-0", {"name": "trainer", "image": "x"})
    machine.create("field-0", {**trainer, "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]})
    machine.create("host-0", trainer, volumes=[{"name": "h", "hostPath": {"path": "/not/there"}}])
    expected = {
        "memory-0": ("SharedMemoryTooSmall", "sharedMemory smaller"),
        "config-0": ("VolumeNotSupported", "configMap"),
        "nothing-0": ("InvalidPod", "no image"),
        "field-0": ("InvalidPod", "spec.x"),
        "host-0": ("HostPathMissing", "/not/there"),
    }
    for name, (reason, part) in expected.items():
        machine.wait_for(lambda name=name: machine.phase(name) == "Failed")
        assert machine.status(name)["reason"] == reason
        assert part in machine.status(name)["message"]
        machine.mark_deleted(name)
    machine.wait_for(lambda: machine.store.pods() == [])


def test_garbage_does_not_end_the_agent(machine: Machine) -> None:
    machine.start()
    pods = machine.paths.objects / "pods"
    for name, content in {
        "torn": b'{"metadata": {"na',
        "list": b"[1, 2]",
        "deep": b"[" * 100_000,
        "empty": b"",
        "binary": b"\xff\xfe\x00",
        "spec": b'{"metadata": 7, "spec": {"nodeName": "node-1", "containers": 3}}',
        "names": b'{"metadata": {"name": "../x", "uid": "../../x"}, "spec": {"nodeName": "node-1"}}',
    }.items():
        (pods / name).mkdir()
        (pods / name / "pod.json").write_bytes(content)
    (pods / "a file").write_text("x")
    machine.create("gpt-0", machine.shell("trainer", "echo fine"))
    machine.wait_for(lambda: machine.phase("gpt-0") == "Succeeded")
    machine.wait_for(lambda: machine.phase("spec") == "Failed" and machine.phase("names") == "Failed")
    assert machine.agents["node-1"].poll() is None


def test_command_that_does_not_exist_is_named_and_tried_again(machine: Machine) -> None:
    machine.start()
    machine.create("gpt-0", machine.container("trainer", "no-such-program"))
    machine.wait_for(lambda: machine.container_status("gpt-0").get("restartCount", 0) >= 1)
    last = machine.container_status("gpt-0")["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (128, "StartError")
    assert "no-such-program" in last["message"]


def test_missing_secret_is_waited_for(machine: Machine) -> None:
    machine.start()
    machine.create(
        "gpt-0", machine.shell("trainer", "exit 0"), volumes=[{"name": "t", "secret": {"secretName": "late"}}]
    )
    machine.wait_for(lambda: "late" in machine.status("gpt-0").get("message", ""))
    assert machine.phase("gpt-0") == "Pending"
    machine.store.put("secrets", "late", {"data": {}}, secret=True)
    machine.wait_for(lambda: machine.phase("gpt-0") == "Succeeded")


def test_stopped_node_ends_its_pods_gracefully_and_leaves_nothing(machine: Machine) -> None:
    journal = machine.paths.state_dir / "journal"
    agent = machine.start()
    machine.create("gpt-0", machine.shell("trainer", f"trap 'echo end > {journal}; exit 0' TERM; echo up; {FOREVER}"))
    machine.wait_for(lambda: machine.log("gpt-0") == "up\n")
    assert stop_node(machine.paths, "node-1")
    assert agent.wait(timeout=10) == 0
    assert journal.read_text() == "end\n"
    assert machine.status("gpt-0")["reason"] == "NodeShutdown"
    assert not machine.paths.node_memory("node-1").exists()
    assert not machine.paths.node_scratch("node-1").exists()


def test_node_ends_when_its_supervisor_has_been_gone_for_long(machine: Machine, tmp_path: Path) -> None:
    supervisor = subprocess.Popen(["/bin/sleep", "600"])
    agent = machine.start(supervisor_pid=supervisor.pid, orphan_seconds=0.5)
    machine.create("gpt-0", machine.shell("trainer", SLEEP))
    machine.wait_for(lambda: machine.phase("gpt-0") == "Running")
    supervisor.kill()
    supervisor.wait()
    assert agent.wait(timeout=10) == 0
    assert node_processes(machine.paths, "node-1") == []


def test_pods_of_a_restarted_node_have_failed_but_finished_ones_stay(machine: Machine) -> None:
    agent = machine.start()
    machine.create("done-0", machine.shell("trainer", "exit 0"))
    machine.create("gpt-0", machine.shell("trainer", f"echo run; {SLEEP}"))
    machine.wait_for(lambda: machine.phase("gpt-0") == "Running" and machine.phase("done-0") == "Succeeded")
    assert kill_node(machine.paths, "node-1") >= 2
    agent.wait(timeout=10)
    machine.start()
    machine.wait_for(lambda: machine.phase("gpt-0") == "Failed")
    assert machine.status("gpt-0")["reason"] == "NodeRestarted"
    assert machine.phase("done-0") == "Succeeded"
    assert machine.log("gpt-0") == "run\n"


def test_sidecars_of_sternpost_ignore_modules_in_the_persons_folder(machine: Machine) -> None:
    (machine.paths.state_dir / "json.py").write_text("raise SystemExit(3)")
    machine.start()
    script = "python3 -m json.tool --help > /dev/null && echo fine; exec sleep 600"
    folder = str(machine.paths.state_dir)
    side = machine.sidecar("sternpost-eagle-eye", script, workingDir=folder)
    machine.create("gpt-0", machine.shell("trainer", SLEEP, workingDir=folder), init=(side,))
    machine.wait_for(lambda: machine.log("gpt-0", "sternpost-eagle-eye") == "fine\n")


def test_agent_starts_quickly_and_idles_cheaply(machine: Machine) -> None:
    started = time.monotonic()
    agent = start_node(machine.paths, "node-9")
    machine.agents["node-9"] = agent
    machine.wait_for(lambda: machine.store.get("nodes", "node-9"))
    assert time.monotonic() - started < 2
    machine.create("gpt-0", machine.shell("trainer", SLEEP), node="node-9")
    machine.wait_for(lambda: machine.phase("gpt-0") == "Running")

    def ticks() -> int:
        fields = Path(f"/proc/{agent.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before, begin = ticks(), time.monotonic()
    machine.wait_for(lambda: time.monotonic() - begin > 2)
    assert (ticks() - before) / 100 / (time.monotonic() - begin) < 0.05
