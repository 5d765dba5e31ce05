"""Two real sidecars on the loopback, fake trainers and launchers, and the folder as control plane."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

TOKEN = "s3cret"


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def eventually(check, seconds=60.0):
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


class FakeTrainer:
    """Serves a page; stands still when told."""

    def __init__(self, rank):
        self.rank, self.step, self.waiting, self.answering = rank, 0, 0, threading.Event()
        self.answering.set()
        trainer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                trainer.answering.wait(20)
                content = trainer.page().encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                """Quiet."""

            def handle(self):
                try:
                    super().handle()
                except (BrokenPipeError, ConnectionResetError):
                    return  # the sidecar did not wait

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def page(self):
        label = f'rank="{self.rank}"'
        lines = [
            f'sternpost_phase{{{label},phase="train"}} 1',
            f"sternpost_in_collective{{{label}}} {self.waiting}",
            f"sternpost_step{{{label}}} {self.step}",
            f"sternpost_loss{{{label}}} 2.5",
        ]
        for name in ("step", "compute"):
            lines += [
                f"sternpost_{name}_seconds_count{{{label}}} {self.step}",
                f"sternpost_{name}_seconds_sum{{{label}}} {0.1 * self.step}",
            ]
        return "\n".join(lines) + "\n"

    def close(self):
        self.answering.set()
        self.server.shutdown()
        self.server.server_close()


class Cluster:
    def __init__(self, folder, make_attempt_bytes):
        self.folder, self.make_attempt_bytes = folder, make_attempt_bytes
        self.ports = dict(enumerate(free_ports(3)))
        self.trainers = {worker: FakeTrainer(worker) for worker in (0, 1)}
        self.sidecars: dict[int, subprocess.Popen] = {}
        (folder / "token").write_text(TOKEN)
        (folder / "objects" / "attempts").mkdir(parents=True)
        for slot in self.ports:
            self.control(slot).mkdir()

    def control(self, slot) -> Path:
        return self.folder / f"control-{slot}"

    def issue(self, **more):
        path = self.folder / "objects" / "attempts" / "gpt.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(self.make_attempt_bytes(2, spares=1, ports=self.ports, **more))
        temporary.replace(path)

    def start(self, slot):
        policy = {"intervalSeconds": 0.2, "hang": {"minSeconds": 2, "initSeconds": 60, "factor": 1.5}}
        self.sidecars[slot] = subprocess.Popen(
            [sys.executable, "-m", "sternpost_eagle_eye", "sidecar"],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("STERNPOST_")},
                "http_proxy": "http://127.0.0.1:1",  # must not be used
                "STERNPOST_JOB": "gpt",
                "STERNPOST_JOB_UID": "uid-job",
                "STERNPOST_NAMESPACE": "default",
                "STERNPOST_POD": f"gpt-{slot}",
                "STERNPOST_POD_UID": f"uid-{slot}",
                "STERNPOST_NODE": f"node-{slot}",
                "STERNPOST_CONTROL_DIR": str(self.control(slot)),
                "STERNPOST_SHM_DIR": str(self.folder),
                "STERNPOST_CONTROL_PLANE": (self.folder / "objects").as_uri(),
                "STERNPOST_TOKEN_FILE": str(self.folder / "token"),
                "STERNPOST_LISTEN_HOST": "127.0.0.1",
                "STERNPOST_PORT_EAGLE_EYE": str(self.ports[slot]),
                "STERNPOST_PORT_METRICS_0": str(self.trainers[slot].port if slot in self.trainers else 1),
                "STERNPOST_EAGLE_EYE": json.dumps(policy),
            },
            stderr=subprocess.PIPE if slot == 9 else subprocess.DEVNULL,
        )

    def launcher(self, slot, attempt="3-9f2c1a00", state="running", **more):
        content = {"pid": 1, "updatedAt": time.time(), "attempt": attempt, "state": state, "ranks": []} | more
        if slot in self.trainers:
            content["ranks"] = [{"rank": slot, "localRank": 0, "pid": None, "exitCode": None, "exitedAt": None}]
        temporary = self.control(slot) / "launcher.tmp"
        temporary.write_text(json.dumps(content))
        temporary.replace(self.control(slot) / "launcher.json")

    def handed(self, slot):
        path = self.control(slot) / "attempt.json"
        return json.loads(path.read_bytes())["spec"] if path.exists() else None

    def progress(self, slot=0):
        try:
            response = httpx.get(
                f"http://127.0.0.1:{self.ports[slot]}/v1/progress",
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=2,
                trust_env=False,
            )
        except httpx.HTTPError:
            return None
        return response.json() if response.status_code == 200 else None

    def anomalies(self):
        return [json.loads(path.read_bytes()) for path in self.folder.glob("objects/anomalies/gpt/*.json")]

    def close(self):
        for sidecar in self.sidecars.values():
            sidecar.kill()
            sidecar.communicate()
        for trainer in self.trainers.values():
            trainer.close()


@pytest.fixture
def cluster(tmp_path, make_attempt_bytes):
    made = Cluster(tmp_path, make_attempt_bytes)
    yield made
    made.close()


def test_from_attempt_to_anomaly(cluster):
    for slot in cluster.ports:
        cluster.start(slot)
    cluster.issue(action="hold", number=3)
    for slot in cluster.ports:
        eventually(lambda slot=slot: cluster.handed(slot))
    assert cluster.progress() is None  # on hold nobody judges

    issued = time.monotonic()
    cluster.issue(number=3, issued_at=1_764_000_001.0)
    for slot in cluster.ports:
        eventually(lambda slot=slot: cluster.handed(slot)["action"] == "run")
    assert time.monotonic() - issued < 2  # a third of a second where there is a processor for it

    cluster.launcher(0)
    cluster.launcher(1)
    cluster.launcher(2, state="idle")
    report = eventually(lambda: (r := cluster.progress()) and len(r["workers"]) == 3 and r)
    assert cluster.progress(1) is None

    def trained(steps):
        for trainer in cluster.trainers.values():
            trainer.step += 1
        return (report := cluster.progress()) and (report.get("step") or 0) >= steps and report

    report = eventually(lambda: trained(8))
    assert report["reportsSteps"]
    assert {w["pod"]: w["launcher"] for w in report["workers"]} == {
        "gpt-0": "running",
        "gpt-1": "running",
        "gpt-2": "idle",
    }

    # Worker 0's sidecar is killed and comes back: it knows the attempt, and all report to it again.
    cluster.sidecars[0].kill()
    cluster.sidecars[0].communicate()
    cluster.start(0)
    report = eventually(lambda: (r := cluster.progress()) and len(r["workers"]) == 3 and r)
    eventually(lambda: trained(12))

    # One rank stands still with a page that does not answer, the other one waits for it.
    cluster.trainers[0].waiting = 1
    cluster.trainers[1].answering.clear()
    (anomaly,) = eventually(cluster.anomalies)
    spec = anomaly["spec"]
    assert (spec["kind"], spec["worker"], spec["node"], spec["evict"]) == ("hang", 1, "node-1", False)
    assert spec["attempt"] == "3-9f2c1a00"
    assert spec["confidence"] >= 0.9
    cluster.trainers[1].answering.set()

    # A launcher's failure is told at once, and the next attempt starts from nothing.
    cluster.launcher(1, state="failed", message="rank 1 exited with 3")
    eventually(lambda: {w["pod"]: w["launcher"] for w in cluster.progress()["workers"]}["gpt-1"] == "failed")
    cluster.issue(number=4)
    report = eventually(lambda: (r := cluster.progress()) and r["attemptNumber"] == 4 and r)
    assert report.get("step") is None

    for slot, sidecar in cluster.sidecars.items():
        asked = time.monotonic()
        sidecar.send_signal(signal.SIGTERM)
        assert sidecar.wait(10) == 0, slot
        assert time.monotonic() - asked < 4


def run_once(**environ):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STERNPOST_")}
    return subprocess.run(
        [sys.executable, "-m", "sternpost_eagle_eye", "sidecar"],
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_missing_variable_is_named():
    done = run_once()
    assert done.returncode == 2
    assert "STERNPOST_JOB: job: Field required; the operator sets it" in done.stderr


def test_a_port_already_taken_is_one_clear_message(cluster):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        cluster.ports[9] = other.getsockname()[1]
        cluster.control(9).mkdir()
        cluster.start(9)
        _, errors = cluster.sidecars[9].communicate(timeout=30)
    assert cluster.sidecars[9].returncode == 2
    assert f"cannot listen on port {cluster.ports[9]} of 127.0.0.1" in errors.decode()
    assert "STERNPOST_PORT_EAGLE_EYE" in errors.decode()
