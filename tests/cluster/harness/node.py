"""A node: containerd, kubelet and kube-proxy on a machine of their own, with its own Pod network and cgroup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import cgroups
from harness.containerd import SOCKET, Containerd
from harness.machine import Machine
from harness.network import PODS, Addresses, cni_configuration

COMPONENTS = ("containerd", "kubelet", "kube-proxy")
"""In the order in which they are started."""


class Node:
    """One node of a cluster."""

    def __init__(self, machine: Machine, index: int, cgroup: str, binaries: dict[str, Path]) -> None:
        self.machine = machine
        self.index = index
        self.cgroup = cgroup
        self._binaries = binaries
        self.runtime = Containerd(machine)

    @property
    def name(self) -> str:
        """Its name in the cluster."""
        return self.machine.name

    @property
    def _folder(self) -> Path:
        return self.machine.folder

    def prepare(self, addresses: Addresses) -> None:
        """Mounts and configuration files after the machine has booted; what kubelet and containerd keep is kept."""
        machine = self.machine
        cgroups.make(self.cgroup)
        self.runtime.prepare()
        machine.bind(self._folder / "kubelet", "/var/lib/kubelet")
        machine.bind(self._folder / "log", "/var/log")
        machine.run("mount", "--make-rshared", "/var/lib/kubelet")
        cni_configuration(self.index, self.runtime.cni)
        (self._folder / "resolv.conf").write_text("options timeout:1\n")
        (self._folder / "kubelet.json").write_text(json.dumps(self._kubelet_configuration(addresses), indent=1))
        (self._folder / "kube-proxy.json").write_text(json.dumps(self._proxy_configuration(), indent=1))

    def start(self, component: str, addresses: Addresses) -> None:
        """Start one component, or start it again."""
        match component:
            case "containerd":
                self.runtime.start()
                return
            case "kubelet":
                command: list[str | Path] = [
                    self._binaries["kubelet"],
                    f"--config={self._folder / 'kubelet.json'}",
                    f"--kubeconfig={self._secrets / self.name}.kubeconfig",
                    f"--hostname-override={self.name}",
                    f"--node-ip={addresses.node(self.index)}",
                    "--cert-dir=/run/kubelet",
                ]
            case "kube-proxy":
                command = [self._binaries["kube-proxy"], f"--config={self._folder / 'kube-proxy.json'}"]
            case _:
                raise ValueError(f"a node has no component {component}; it has {', '.join(COMPONENTS)}")
        self.machine.start(component, command)

    @property
    def _secrets(self) -> Path:
        return self.machine.cluster / "secrets"

    def _kubelet_configuration(self, addresses: Addresses) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._secrets / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "enforceNodeAllocatable": [],
            "clusterDNS": [addresses.control_plane],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            # What else is on this machine must not make a node evict its Pods.
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "failSwapOn": False,
            "nodeLeaseDurationSeconds": 8,
            "nodeStatusUpdateFrequency": "2s",
            "nodeStatusReportFrequency": "5m",
            "resolvConf": str(self._folder / "resolv.conf"),
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        }

    def _proxy_configuration(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": PODS,
            "hostnameOverride": self.name,
            "clientConnection": {"kubeconfig": str(self._secrets / "kube-proxy.kubeconfig")},
            # The limits of connection tracking are the machine's, not a node's.
            "conntrack": {"maxPerCore": 0, "min": 0},
        }
