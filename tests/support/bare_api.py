"""A real etcd and kube-apiserver and nothing else: no scheduler, no controllers, no nodes. Whoever tests plays those parts.

Up in seconds; its ports are free ones of the loopback, its data are in a temporary folder.
"""

from __future__ import annotations

import json
import secrets
import socket
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import binaries, certificates, credentials, folders
from harness.cluster import require_packages
from harness.commands import HarnessError, wait_until
from harness.processes import Started, spawn
from kube import Kube, Object, condition_of
from session_cluster import helm_program

AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
"""
READY_SECONDS = 60.0


@dataclass
class BareApi:
    """An API server, and etcd behind it."""

    folder: Path
    kube: Kube
    programs: dict[str, Path]
    port: int
    etcd_port: int
    etcd: Started
    apiserver: Started

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator."""
        return self.kube.kubeconfig

    @property
    def audit_log(self) -> Path:
        """Every request, one JSON object a line."""
        return self.folder / "audit.log"

    def requests(self, user_agent: str) -> list[dict[str, object]]:
        """What a client asked so far, beside watches."""
        entries = (json.loads(line) for line in self.audit_log.read_text().splitlines())
        return [
            entry
            for entry in entries
            if str(entry.get("userAgent", "")).startswith(user_agent) and entry["verb"] != "watch"
        ]

    def restart(self) -> None:
        """`kill -9` of the API server, and a new one."""
        self.apiserver.kill()
        # Dead for the kernel's process list, its last thread may still hold the port.
        wait_until(lambda: _is_free(self.port), f"port {self.port} is free", seconds=READY_SECONDS, interval=0.05)
        self.apiserver = _start_apiserver(self.folder, self.programs, self.etcd_port, self.port)
        _wait_ready(self.folder, self.port)


@contextmanager
def bare_api() -> Iterator[BareApi]:
    """One, with the CRDs in it; removed afterwards."""
    require_packages()
    programs = binaries.build()
    with tempfile.TemporaryDirectory(prefix="sternpost-api-") as name, ExitStack() as stack:
        folder = Path(name)
        etcd_port, peer_port, port = _free_ports(3)
        certificates.make_authority(folder)
        certificates.make_certificate(folder, "apiserver", "/CN=kube-apiserver", alternatives=["IP:127.0.0.1"])
        certificates.make_key(folder / "service-accounts.key")
        credentials.make_tokens(folder, [])
        (folder / "audit-policy.yaml").write_text(AUDIT_POLICY)
        client, peer = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
        etcd = spawn(
            [
                programs["etcd"],
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--heartbeat-interval=500",
                "--election-timeout=5000",
            ],
            log=folder / "etcd.log",
            mark=folder,
        )
        stack.callback(etcd.kill)
        apiserver = _start_apiserver(folder, programs, etcd_port, port)
        kubeconfig = credentials.kubeconfig(
            folder, credentials.ADMIN, f"https://127.0.0.1:{port}", folder / "kubeconfig"
        )
        kube = Kube(kubeconfig, programs["kubectl"], helm_program())
        made = BareApi(folder, kube, programs, port, etcd_port, etcd, apiserver)
        stack.callback(lambda: made.apiserver.kill())  # noqa: PLW0108 -- the one that runs then
        _wait_ready(folder, port)
        kube.kubectl("apply", "--server-side", "-f", folders.ROOT / "crds")
        for crd in ("trainingjobs", "attempts", "anomalies"):
            kube.wait_for("crd", f"{crd}.sternpost.dev", _is_established, "established", seconds=READY_SECONDS)
        yield made


def _start_apiserver(folder: Path, programs: dict[str, Path], etcd_port: int, port: int) -> Started:
    key = folder / "service-accounts.key"
    return spawn(
        [
            programs["kube-apiserver"],
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--tls-cert-file={folder / 'apiserver.crt'}",
            f"--tls-private-key-file={folder / 'apiserver.key'}",
            f"--client-ca-file={folder / 'ca.crt'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            # Nobody makes service accounts here.
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--audit-policy-file={folder / 'audit-policy.yaml'}",
            f"--audit-log-path={folder / 'audit.log'}",
        ],
        log=folder / "apiserver.log",
        mark=folder,
    )


def _is_established(crd: Object) -> bool:
    return (condition_of(crd, "Established") or {}).get("status") == "True"


def _wait_ready(folder: Path, port: int) -> None:
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{port}/readyz", timeout=2, context=context) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    try:
        wait_until(ready, "the API server is ready", seconds=READY_SECONDS)
    except HarnessError as error:
        # The folder does not outlive the test.
        raise HarnessError(f"{error}; the end of its log:\n{(folder / 'apiserver.log').read_text()[-4000:]}") from error


def _free_ports(count: int) -> list[int]:
    """Free ports below those that the kernel gives to clients.

    While the server is away, a client that tries to reach it again and again would else, some time, be given its very port.
    """
    found: set[int] = set()
    while len(found) < count:
        port = 20_000 + secrets.randbelow(10_000)
        if _is_free(port):
            found.add(port)
    return list(found)


def _is_free(port: int) -> bool:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
