"""etcd, the API server, the controller manager, the scheduler and the DNS server, on a machine of their own."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from pathlib import Path

from harness import certificates, credentials
from harness.commands import wait_until
from harness.machine import Machine
from harness.network import SERVICES, Addresses

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns")
"""In the order in which they are started."""
NODE_LOST_SECONDS = 12
"""How long a kubelet may be silent before its node counts as lost: short, so that a test need not wait; Kubernetes' own is 50."""
SERVICE_ACCOUNT_NAMES = [
    f"DNS:kubernetes{end}" for end in ("", ".default", ".default.svc", ".default.svc.cluster.local")
]
AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: ["system:serviceaccounts:sternpost-system"]
  - level: None
"""
"""What Sternpost's own services ask of the API server, one line a request, for the tests that count them."""
COREFILE = """
.:53 {
    errors
    ready :8181
    kubernetes cluster.local in-addr.arpa {
        kubeconfig %s
        pods insecure
        ttl 5
    }
    cache 5
}
"""


class ControlPlane:
    """The control plane of one cluster; each component can be killed, paused and started again."""

    def __init__(self, machine: Machine, binaries: dict[str, Path]) -> None:
        self.machine = machine
        self._binaries = binaries

    @property
    def secrets(self) -> Path:
        """The folder with certificates and tokens."""
        return self.machine.cluster / "secrets"

    @property
    def audit_log(self) -> Path:
        """What Sternpost's service accounts asked of the API server, one JSON object a line."""
        return self.machine.folder / "audit.log"

    def prepare(self, addresses: Addresses, nodes: list[str]) -> None:
        """Certificates, tokens and configuration files, before anything is started."""
        folder = self.secrets
        certificates.make_authority(folder)
        names = [f"IP:{addresses.control_plane}", "IP:127.0.0.1", "IP:10.96.0.1", *SERVICE_ACCOUNT_NAMES]
        certificates.make_certificate(folder, "apiserver", "/CN=kube-apiserver", alternatives=names)
        certificates.make_certificate(folder, "kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        certificates.make_key(folder / "service-accounts.key")
        credentials.make_tokens(folder, nodes)
        inside = f"https://{addresses.control_plane}:6443"
        for who in ("kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns", *nodes):
            credentials.kubeconfig(folder, who, inside, folder / f"{who}.kubeconfig")
        (self.machine.folder / "audit-policy.yaml").write_text(AUDIT_POLICY)
        (self.machine.folder / "Corefile").write_text(COREFILE % (folder / "coredns.kubeconfig"))

    def start(self, component: str, addresses: Addresses) -> None:
        """Start one component, or start it again."""
        self.machine.start(component, [self._binaries[component], *self._arguments(component, addresses)])

    def _arguments(self, component: str, addresses: Addresses) -> list[str]:
        secrets = self.secrets
        configuration = f"--kubeconfig={secrets / component}.kubeconfig"
        match component:
            case "etcd":
                # With its fsync: a killed etcd must come back with all that it acknowledged. The long election timeout
                # is for a machine that is busy with everything at once.
                return [
                    f"--data-dir={self.machine.folder / 'etcd'}",
                    "--heartbeat-interval=500",
                    "--election-timeout=5000",
                    "--log-level=warn",
                ]
            case "kube-apiserver":
                return self._apiserver_arguments(addresses)
            case "kube-controller-manager":
                return [
                    configuration,
                    "--leader-elect=false",
                    "--use-service-account-credentials=true",
                    f"--service-account-private-key-file={secrets / 'service-accounts.key'}",
                    f"--root-ca-file={secrets / 'ca.crt'}",
                    "--node-monitor-period=1s",
                    f"--node-monitor-grace-period={NODE_LOST_SECONDS}s",
                    f"--flex-volume-plugin-dir={self.machine.folder / 'volume-plugins'}",
                    "--bind-address=127.0.0.1",
                ]
            case "kube-scheduler":
                return [configuration, "--leader-elect=false", "--bind-address=127.0.0.1"]
            case "coredns":
                return ["-conf", str(self.machine.folder / "Corefile")]
            case _:
                raise ValueError(f"the control plane has no component {component}; it has {', '.join(COMPONENTS)}")

    def _apiserver_arguments(self, addresses: Addresses) -> list[str]:
        secrets = self.secrets
        key = secrets / "service-accounts.key"
        return [
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            f"--advertise-address={addresses.control_plane}",
            f"--tls-cert-file={secrets / 'apiserver.crt'}",
            f"--tls-private-key-file={secrets / 'apiserver.key'}",
            f"--client-ca-file={secrets / 'ca.crt'}",
            f"--token-auth-file={secrets / 'tokens.csv'}",
            f"--kubelet-client-certificate={secrets / 'kubelet-client.crt'}",
            f"--kubelet-client-key={secrets / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={SERVICES}",
            # Services are reached at their Pods: no kube-proxy runs on the control plane's machine.
            "--enable-aggregator-routing=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--audit-policy-file={self.machine.folder / 'audit-policy.yaml'}",
            f"--audit-log-path={self.audit_log}",
        ]

    def wait_ready(self, addresses: Addresses, seconds: float = 60) -> None:
        """Wait until the API server says that it is ready; raises `HarnessError` with where its log is."""
        context = ssl.create_default_context(cafile=str(self.secrets / "ca.crt"))
        url = f"https://{addresses.control_plane}:6443/readyz"

        def ready() -> bool:
            try:
                with urllib.request.urlopen(url, context=context, timeout=2) as answer:
                    return bool(answer.status == 200)
            except (urllib.error.URLError, OSError):
                return False

        log = self.machine.log("kube-apiserver")
        wait_until(ready, f"the API server is ready (its log: {log})", seconds=seconds, interval=0.2)
