"""What can go wrong with a cluster, made to go wrong: each does one thing, and there is a way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from harness import cgroups, network
from harness.cluster import Cluster
from harness.commands import HarnessError
from harness.machine import Machine


class Faults:
    """Faults of one cluster's nodes and control plane."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def _node(self, name: str) -> Machine:
        try:
            return self._cluster.nodes[name].machine
        except KeyError as error:
            known = ", ".join(self._cluster.nodes)
            raise HarnessError(f"there is no node {name}; there are {known}") from error

    @property
    def _control_plane(self) -> Machine:
        return self._cluster.control_plane.machine

    # --- nodes ---

    def lose_node(self, name: str) -> None:
        """Kubelet, containerd and all processes of a node end at once, as when its power fails."""
        self._node(name).power_off()

    def recover_node(self, name: str) -> None:
        """Boot a node that was lost, and wait until it is ready; its containerd still has its images."""
        if not self._node(name).running:
            self._cluster.boot(self._cluster.nodes[name])
        self._cluster.wait_node(name)

    def kill_on_node(self, name: str, component: str) -> None:
        """`kill -9` of a node's kubelet, containerd or kube-proxy; its containers live on."""
        self._node(name).kill(component)

    def start_on_node(self, name: str, component: str) -> None:
        """Start it again."""
        self._cluster.nodes[name].start(component, self._cluster.addresses)

    @contextmanager
    def slow_node(self, name: str, cores: float) -> Iterator[None]:
        """All Pods of a node together have no more than so many cores."""
        before = cgroups.limit_cpu(self._cluster.nodes[name].cgroup, cores)
        try:
            yield
        finally:
            cgroups.unlimit_cpu(before)

    def cut_node(self, name: str) -> None:
        """Pull a node's cable: kubelet and Pods live on, and neither hears of the rest, nor the rest of them."""
        network.set_cable(self._control_plane, name, connected=False)

    def mend_node(self, name: str) -> None:
        """Put the cable back."""
        network.set_cable(self._control_plane, name, connected=True)

    def cut_pods(self, name: str) -> None:
        """Cut the bridge of a node's Pods; its kubelet goes on reporting."""
        network.set_pod_bridge(self._node(name), connected=False)

    def mend_pods(self, name: str) -> None:
        """Mend it."""
        network.set_pod_bridge(self._node(name), connected=True)

    def kill_container(self, namespace: str, pod: str, container: str) -> None:
        """`kill -9` of the first process of a running container, on its node, without a word to anybody."""
        known = json.loads(self._cluster.kubectl("--namespace", namespace, "get", "pod", pod, "-o", "json"))
        status = known["status"]
        statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
        identity = next(item["containerID"] for item in statuses if item["name"] == container).rpartition("/")[2]
        node = self._cluster.nodes[known["spec"]["nodeName"]]
        # The pid is the node's own; it is killed there.
        pids = [
            words[1]
            for line in node.runtime.ctr("tasks", "list").splitlines()
            if (words := line.split())[:1] == [identity]
        ]
        if not pids:
            raise HarnessError(f"container {container} of {namespace}/{pod} does not run on {node.name}")
        node.machine.run("kill", "-KILL", pids[0])

    # --- what the API says of a node ---

    def set_condition(self, node: str, kind: str, status: str, reason: str, message: str) -> None:
        """Set a condition of a node as a node problem detector does."""
        condition = {"type": kind, "status": status, "reason": reason, "message": message}
        patch = {"status": {"conditions": [condition]}}
        self._cluster.kubectl(
            "patch", "node", node, "--subresource=status", "--type=strategic", "-p", json.dumps(patch)
        )

    def clear_condition(self, node: str, kind: str) -> None:
        """Remove a condition of a node."""
        patch = {"status": {"conditions": [{"type": kind, "$patch": "delete"}]}}
        self._cluster.kubectl(
            "patch", "node", node, "--subresource=status", "--type=strategic", "-p", json.dumps(patch)
        )

    def taint(self, node: str, taint: str) -> None:
        """Add a taint (`KEY=VALUE:EFFECT`), or take it away with a `-` at its end."""
        self._cluster.kubectl("taint", "node", node, taint, "--overwrite")

    # --- the control plane ---

    def kill_component(self, component: str) -> None:
        """`kill -9` of etcd, kube-apiserver, …"""
        self._control_plane.kill(component)

    def start_component(self, component: str) -> None:
        """Start it again; for the API server, wait until it is ready."""
        self._cluster.control_plane.start(component, self._cluster.addresses)
        if component in {"etcd", "kube-apiserver"}:
            self._cluster.control_plane.wait_ready(self._cluster.addresses)

    @contextmanager
    def paused(self, component: str) -> Iterator[None]:
        """A component of the control plane stands still (SIGSTOP): it keeps its connections and answers nothing."""
        self._control_plane.pause(component)
        try:
            yield
        finally:
            self._control_plane.resume(component)

    def repair(self) -> None:
        """Whatever a test has left broken: cables, lost nodes, dead or paused components."""
        control_plane = self._cluster.control_plane
        for component in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns"):
            self._control_plane.resume(component)
            if not self._control_plane.component(component).alive:
                control_plane.start(component, self._cluster.addresses)
        control_plane.wait_ready(self._cluster.addresses)
        for name, node in self._cluster.nodes.items():
            if not node.machine.running:
                self._cluster.boot(node)
            self.mend_node(name)
            for component in ("containerd", "kubelet", "kube-proxy"):
                if not node.machine.component(component).alive:
                    self.start_on_node(name, component)
        for name in self._cluster.nodes:
            self._cluster.wait_node(name)
