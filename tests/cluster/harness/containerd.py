"""The container runtime of a machine, with its standard paths, which are the machine's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from harness.commands import CommandError, wait_until
from harness.images import PAUSE_IMAGE
from harness.machine import Machine

SOCKET = "/run/containerd/containerd.sock"
_CONFIGURATION = """
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE no process may be made less likely to be killed, and every sandbox would fail.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"""
COMPONENT = "containerd"


class Containerd:
    """The containerd of one machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    @property
    def root(self) -> Path:
        """What it keeps, as seen from here."""
        return self.machine.folder / "containerd"

    @property
    def cni(self) -> Path:
        """The folder of its network configuration."""
        return self.machine.folder / "cni"

    def prepare(self) -> None:
        """Mounts and configuration on a machine that has just booted; what it kept is kept."""
        machine = self.machine
        machine.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/lib")
        machine.bind(self.root, "/var/lib/containerd")
        text = _CONFIGURATION.format(socket=SOCKET, pause=PAUSE_IMAGE, cni=self.cni)
        (machine.folder / "containerd.toml").write_text(text)

    def start(self) -> None:
        """Start it, and wait until it answers; raises `HarnessError` with where its log is."""
        self.machine.start(COMPONENT, ["containerd", "--config", self.machine.folder / "containerd.toml"])

        def answers() -> bool:
            try:
                self.ctr("version", timeout=10)
            except CommandError:
                return False
            return True

        what = f"containerd of {self.machine.name} answers (its log: {self.machine.log(COMPONENT)})"
        wait_until(answers, what, seconds=60)

    def ctr(self, *arguments: str | Path, timeout: float = 300) -> str:
        """Run `ctr` on the machine, in the kubelet's containerd namespace."""
        return self.machine.run("ctr", "--address", SOCKET, "--namespace", "k8s.io", *arguments, timeout=timeout)

    def load(self, archives: Mapping[str, Path]) -> None:
        """Import images (`images.archive`, by name) that it does not have in this version."""
        mark = self.root / "images.json"
        loaded: dict[str, str] = json.loads(mark.read_text()) if mark.exists() else {}
        for name, archive in archives.items():
            if loaded.get(name) != archive.stem:
                self.ctr("images", "import", archive)
                loaded[name] = archive.stem
                mark.write_text(json.dumps(loaded))
