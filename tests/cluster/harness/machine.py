"""A machine of the cluster: namespaces, their first process, and the components that run there."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict
from pathlib import Path

from harness.commands import HarnessError, run, wait_until
from harness.processes import Started, child_of, spawn


class Machine:
    """One machine. What is known of it is in its folder, so that another process can go on with it."""

    def __init__(self, name: str, cluster: Path, pause: Path) -> None:
        self.name = name
        self.cluster = cluster
        self.folder = cluster / "machines" / name
        self._pause = pause

    @property
    def _file(self) -> Path:
        return self.folder / "machine.json"

    def _load(self) -> dict[str, dict[str, float]]:
        try:
            result: dict[str, dict[str, float]] = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        return result

    def _record(self, name: str, process: Started) -> None:
        known = self._load()
        known[name] = asdict(process)
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(known, indent=1))
        temporary.replace(self._file)

    def _find(self, name: str) -> Started | None:
        known = self._load().get(name)
        return Started(int(known["pid"]), known["at"]) if known else None

    @property
    def first(self) -> Started:
        """The first process; raises `HarnessError` when the machine is off."""
        found = self._find("first")
        if found is None or not found.alive:
            raise HarnessError(f"machine {self.name} is not running")
        return found

    @property
    def running(self) -> bool:
        """Whether its first process lives."""
        found = self._find("first")
        return found is not None and found.alive

    def boot(self) -> None:
        """Make the namespaces. Mounts made inside are seen by nobody outside, and go with the last process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unshare = spawn(
            [
                *("unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("--propagation", "slave", self._pause, self.name),
            ],
            log=self.folder / "logs" / "first.log",
            mark=self.cluster,
        )
        self._record("first", child_of(unshare, not_named="unshare"))
        self.run("hostname", self.name)
        self.run("ip", "link", "set", "lo", "up")
        self.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        # A kubelet wants mounts that it makes to be seen by its containers.
        self.run("mount", "--make-rshared", "/")
        self.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        self.run("mkdir", "-p", "/run/lock")

    def enter(self, *, network_only: bool = False) -> list[str]:
        """The words that, put before a command, run it on this machine."""
        words = ["nsenter", "--target", str(self.first.pid), "--net"]
        return words if network_only else [*words, "--mount", "--uts", "--ipc", "--pid"]

    def run(self, *command: str | Path, timeout: float = 60) -> str:
        """Run a command on this machine; raises `CommandError`."""
        return run(*self.enter(), *command, timeout=timeout)

    def bind(self, source: Path, target: str) -> None:
        """Mount a folder of ours, which is made, at a place of this machine's own."""
        source.mkdir(exist_ok=True)
        self.run("mkdir", "-p", target)
        self.run("mount", "--bind", source, target)

    def start(self, component: str, command: list[str | Path], environment: dict[str, str] | None = None) -> None:
        """Start a component that goes on without us; its output is in `logs/COMPONENT.log`."""
        nsenter = spawn(
            [*self.enter(), "--", *command],
            log=self.log(component),
            mark=self.cluster,
            environment=environment,
        )
        self._record(component, child_of(nsenter, not_named="nsenter"))

    def log(self, component: str) -> Path:
        """The file that has a component's output."""
        return self.folder / "logs" / f"{component}.log"

    def component(self, component: str) -> Started:
        """A component's process, which may have ended; raises `HarnessError` when it was never started."""
        found = self._find(component)
        if found is None:
            raise HarnessError(f"machine {self.name} never ran {component}")
        return found

    def kill(self, component: str) -> None:
        """End a component as `kill -9` does."""
        self.component(component).kill()

    def stop(self, component: str, seconds: float = 30) -> None:
        """End a component as an orderly shutdown does; raises `HarnessError` when it takes longer."""
        process = self.component(component)
        process.signal(signal.SIGTERM)
        wait_until(lambda: not process.alive, f"{component} of {self.name} has stopped", seconds=seconds)

    def pause(self, component: str) -> None:
        """Stop a component's processor time (SIGSTOP); it keeps its connections and answers nothing."""
        self.component(component).signal(signal.SIGSTOP)

    def resume(self, component: str) -> None:
        """Let it go on, and the nsenter that started it: it stops itself when its child stands still."""
        process = self.component(component)
        process.signal(signal.SIGCONT)
        parent = process.parent
        if parent is not None:
            parent.signal(signal.SIGCONT)

    def power_off(self) -> None:
        """End everything on it at once, with no chance to say good-bye; nothing happens when it is off."""
        found = self._find("first")
        if found is not None:
            found.kill()
