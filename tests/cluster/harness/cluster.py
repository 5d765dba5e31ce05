"""One cluster: making it, finding it again, loading images, and what the tests do to it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import binaries, cgroups, control_plane, credentials, folders, image_store, images, network, node, volumes
from harness.commands import HarnessError, run, wait_until
from harness.control_plane import ControlPlane
from harness.machine import Machine
from harness.network import Addresses
from harness.node import Node
from harness.processes import marked
from harness.report import say, step

NODES = 3
CONTROL_PLANE = "control-plane"


class Cluster:
    """The cluster in a folder, which need not be up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.binaries = binaries.build()
        self._machine = Machine(CONTROL_PLANE, self.folder, self.binaries["pause"])
        self.control_plane = ControlPlane(self._machine, self.binaries)
        self._nodes: dict[str, Node] = {}

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def _file(self) -> Path:
        return self.folder / "cluster.json"

    @property
    def addresses(self) -> Addresses:
        """Its addresses; raises `HarnessError` when it was never up."""
        return Addresses(self._facts()["number"])

    def _facts(self) -> dict[str, int]:
        try:
            facts: dict[str, int] = json.loads(self._file.read_text())
        except FileNotFoundError as error:
            raise HarnessError(f"no cluster in {self.folder}; make one with: python -P -m harness up") from error
        return facts

    @property
    def nodes(self) -> dict[str, Node]:
        """Its nodes by name."""
        if not self._nodes:
            facts = self._facts()
            for index in range(1, facts["nodes"] + 1):
                machine = Machine(f"node-{index}", self.folder, self.binaries["pause"])
                cgroup = f"{Addresses(facts['number']).link}-{machine.name}"
                self._nodes[machine.name] = Node(machine, index, cgroup, self.binaries)
        return self._nodes

    @property
    def up(self) -> bool:
        """Whether all its machines run."""
        if not self._file.exists():
            return False
        return self._machine.running and all(item.machine.running for item in self.nodes.values())

    def create(self, nodes: int = NODES, names: Iterable[str] = ()) -> None:
        """Make it from nothing, its nodes with these images; wait until all is ready."""
        require_root()
        down(self.folder)
        self.folder.mkdir(parents=True)
        needed = [images.pause(self.binaries["pause"]), *names]
        store = image_store.prepared({name: images.archive(name) for name in needed}, self.binaries["pause"])
        with step("starting the control plane"):
            self._machine.boot()
            addresses = network.build_switch(self._machine)
            self._file.write_text(json.dumps({"number": addresses.number, "nodes": nodes}))
            names = list(self.nodes)
            self.control_plane.prepare(addresses, names)
            server = f"https://{addresses.control_plane}:6443"
            credentials.kubeconfig(self.control_plane.secrets, credentials.ADMIN, server, self.kubeconfig)
            for component in control_plane.COMPONENTS:
                self.control_plane.start(component, addresses)
            self.control_plane.wait_ready(addresses)
        with step(f"starting {nodes} nodes"):
            for item in self.nodes.values():
                image_store.place(store, item.runtime.root)
                self.boot(item)
            network.add_pod_routes(self._machine, None, nodes, addresses)
            for name in self.nodes:
                self.wait_node(name)
            self.kubectl("apply", "-f", "-", stdin=json.dumps(volumes.make(self.folder / "volumes")))

    def boot(self, item: Node) -> None:
        """Start a node, for the first time or after it was lost; `wait_node` waits until it is ready."""
        addresses = self.addresses
        item.machine.boot()
        network.plug_in(self._machine, item.machine, item.index, addresses)
        network.add_pod_routes(item.machine, item.index, len(self.nodes), addresses)
        item.prepare(addresses)
        for component in node.COMPONENTS:
            item.start(component, addresses)

    def wait_node(self, name: str, *, ready: bool = True, seconds: float = 90) -> None:
        """Wait until the API says that a node is ready, or that it is not."""
        path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'

        def reached() -> bool:
            status = self.kubectl("get", "node", name, "--ignore-not-found", "-o", path).strip()
            return (status == "True") == ready and (ready or status != "")

        what = f"node {name} is {'ready' if ready else 'not ready'} (logs: {self.nodes[name].machine.log('kubelet').parent})"
        wait_until(reached, what, seconds=seconds, interval=0.5)

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60) -> str:
        """Run kubectl as the administrator; raises `CommandError`."""
        return run(self.binaries["kubectl"], "--kubeconfig", self.kubeconfig, *arguments, stdin=stdin, timeout=timeout)

    def load(self, names: Iterable[str]) -> None:
        """Import images, by their full names, into every node that lacks them."""
        archives = {name: images.archive(name) for name in names}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in [pool.submit(item.runtime.load, archives) for item in self.nodes.values()]:
                done.result()


def require_root() -> None:
    """Raise `HarnessError` where nodes cannot be made."""
    if os.geteuid() != 0:
        raise HarnessError(
            "making nodes takes root (namespaces, cgroups, mounts); run as root, or set KUBECONFIG to a cluster made with"
            " `make kind`"
        )


def down(folder: Path) -> None:
    """End all that was started for the cluster in this folder and remove what it kept; nothing happens when there is none.

    Works after a crash, too: processes are known by a mark in their environment. What else they made (mounts, networks, firewall
    rules, containers) is in namespaces that end with them; the cgroups' names begin with the name of the cluster's link.
    """
    folder = folder.resolve()
    mine = marked(folder)
    facts = folder / "cluster.json"
    if not mine and not folder.exists():
        return
    if not (facts.exists() or mine or (folder / "machines").is_dir() or not any(folder.iterdir())):
        raise HarnessError(f"{folder} holds no cluster of this harness; nothing was removed")
    with step(f"removing what an earlier cluster left in {folder}" if mine else f"clearing {folder}"):
        # All before any is waited for: the first process of a node goes after its children, and those only when the
        # nsenter that started them takes their exit code, which one that stands still never does.
        for process in mine:
            process.signal(signal.SIGKILL)
        for process in mine:
            process.kill()
        if facts.exists():
            remove_cgroups(Addresses(json.loads(facts.read_text())["number"]).link)
        # Never into something that is mounted there, and not troubled by a second `down` at the same time.
        run("rm", "-rf", "--one-file-system", folder, timeout=600)


def remove_cgroups(link: str) -> None:
    """Remove the cgroups of a cluster's nodes."""
    names = {path.name for place in cgroups.hierarchies().values() for path in place.glob(f"{link}-node-*")}
    for name in sorted(names):
        cgroups.remove(name)


def require_packages() -> None:
    """Install what the harness needs from Debian; raises `SystemExit` where that cannot be done."""
    packages = (
        "etcd-server containerd runc containernetworking-plugins iptables conntrack buildah mmdebstrap iproute2 util-linux"
        " procps openssl ca-certificates"
    )
    with step("looking for Debian's packages"), folders.one_at_a_time("packages"):
        run("python3", folders.ROOT / "tools" / "debian.py", *packages.split(), timeout=1200)
    say(f"cache: {folders.cache()}")
