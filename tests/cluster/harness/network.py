"""Addresses and links: a switch in the control plane's network, a cable to each node, and one to the machine that we are on.

Nodes and Pods are reached from the control plane and from each other; from outside only the machines' own addresses are. The only
thing in the outer network is one link, which goes when the control plane's network goes.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from harness.commands import CommandError, HarnessError, run
from harness.machine import Machine

SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/16"
RANGE = ipaddress.ip_network("198.18.0.0/15")
"""Set aside for tests of network devices (RFC 2544), so that it is nobody's real network."""
SWITCH = "switch"


@dataclass(frozen=True)
class Addresses:
    """The addresses of one cluster: a /24 of `RANGE`."""

    number: int

    @property
    def link(self) -> str:
        """The link's name on the outer machine."""
        return f"stern{self.number}"

    def host(self, last: int) -> str:
        """One address of the cluster's network."""
        return str(RANGE.network_address + 256 * self.number + last)

    @property
    def outside(self) -> str:
        """The outer machine's."""
        return self.host(1)

    @property
    def control_plane(self) -> str:
        """The API server's and the DNS server's."""
        return self.host(2)

    def node(self, index: int) -> str:
        """A node's, by its index from 1."""
        return self.host(10 + index)


def pod_subnet(index: int) -> str:
    """The addresses of a node's Pods."""
    return f"10.244.{index}.0/24"


def _taken() -> set[str]:
    links = json.loads(run("ip", "-json", "link", "show"))
    return {link["ifname"] for link in links}


def build_switch(control_plane: Machine) -> Addresses:
    """The switch on the control plane's machine, and the cable from here to it; a /24 that is free is chosen."""
    control_plane.run("ip", "link", "add", SWITCH, "type", "bridge")
    addresses = _connect_here(control_plane)
    control_plane.run("ip", "address", "add", f"{addresses.control_plane}/24", "dev", SWITCH)
    for link in ("outside", SWITCH):
        control_plane.run("ip", "link", "set", link, "up")
    return addresses


def _connect_here(control_plane: Machine) -> Addresses:
    pid = str(control_plane.first.pid)
    taken = _taken()
    for number in range(256):
        addresses = Addresses(number)
        if addresses.link in taken:
            continue
        peer = ["peer", "name", "outside", "netns", pid]
        try:
            run("ip", "link", "add", addresses.link, "type", "veth", *peer)
        except CommandError:
            if addresses.link in _taken():
                continue  # another cluster was quicker
            raise
        run("ip", "address", "add", f"{addresses.outside}/24", "dev", addresses.link)
        run("ip", "link", "set", addresses.link, "up")
        control_plane.run("ip", "link", "set", "outside", "master", SWITCH)
        return addresses
    raise HarnessError(f"no free /24 in {RANGE}: too many clusters on this machine")


def plug_in(control_plane: Machine, node: Machine, index: int, addresses: Addresses) -> None:
    """The cable from the switch to a node that has just booted; a port of an earlier boot is replaced."""
    port = ["ip", "link", "add", node.name, "type", "veth", "peer", "name", "eth0", "netns", str(node.first.pid)]
    # The node's network is named by its pid as seen from here, so that only the control plane's network is entered.
    run(*control_plane.enter(network_only=True), *port)
    for words in (("master", SWITCH), ("up",)):
        control_plane.run("ip", "link", "set", node.name, *words)
    node.run("ip", "address", "add", f"{addresses.node(index)}/24", "dev", "eth0")
    node.run("ip", "link", "set", "eth0", "up")
    node.run("ip", "route", "add", "default", "via", addresses.control_plane)


def add_pod_routes(machine: Machine, own: int | None, count: int, addresses: Addresses) -> None:
    """How a machine reaches the Pods of the nodes; `own` is its index when it is a node."""
    for index in range(1, count + 1):
        if index != own:
            machine.run("ip", "route", "replace", pod_subnet(index), "via", addresses.node(index))


def set_cable(control_plane: Machine, node: str, *, connected: bool) -> None:
    """Pull a node's cable out of the switch, or put it back: the node and its Pods live on, and nobody hears of them."""
    control_plane.run("ip", "link", "set", node, "up" if connected else "down")


def set_pod_bridge(node: Machine, *, connected: bool) -> None:
    """Cut the bridge of a node's Pods, or mend it: its kubelet goes on reporting."""
    node.run("ip", "link", "set", "cni0", "up" if connected else "down")


def cni_configuration(index: int, folder: Path) -> None:
    """Write the CNI configuration of a node: a bridge of its own, with the node's own subnet."""
    folder.mkdir(parents=True, exist_ok=True)
    plugins = [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni",
                "ranges": [[{"subnet": pod_subnet(index)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    configuration = {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}
    (folder / "10-pods.conflist").write_text(json.dumps(configuration, indent=1))
