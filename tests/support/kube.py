"""kubectl and helm with argument lists, and waiting for what an object becomes by watching it."""

from __future__ import annotations

import codecs
import json
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.commands import CommandError, run

Object = dict[str, Any]
RETRY_SECONDS = 0.5
"""Between two tries while the API server does not answer."""


class NotInTimeError(AssertionError):
    """What a test waited for did not happen."""


@dataclass(frozen=True)
class Kube:
    """One cluster, as its administrator."""

    kubeconfig: Path
    program: Path
    helm_program: Path

    def _base(self, namespace: str | None) -> list[str | Path]:
        scope = ["--namespace", namespace] if namespace else []
        return [self.program, "--kubeconfig", self.kubeconfig, *scope]

    def kubectl(
        self, *arguments: str | Path, namespace: str | None = None, stdin: str | None = None, timeout: float = 90
    ) -> str:
        """Run kubectl; raises `CommandError` with its output when it fails."""
        return run(*self._base(namespace), *arguments, stdin=stdin, timeout=timeout)

    def helm(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 300) -> str:
        """Run helm; raises `CommandError`."""
        return run(self.helm_program, "--kubeconfig", self.kubeconfig, *arguments, stdin=stdin, timeout=timeout)

    def apply(self, *objects: Object, namespace: str | None = None) -> None:
        """Apply objects on the server side."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", namespace=namespace, stdin=text)

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """An object; None when it is not there."""
        text = self.kubectl("get", kind, name, "--ignore-not-found", "-o", "json", namespace=namespace)
        return json.loads(text) if text.strip() else None

    def items(self, kind: str, namespace: str | None = None, *options: str) -> list[Object]:
        """All objects of a kind, in one namespace or in all."""
        everywhere = [] if namespace else ["--all-namespaces"]
        text = self.kubectl("get", kind, "-o", "json", *everywhere, *options, namespace=namespace)
        found: list[Object] = json.loads(text)["items"]
        return found

    def wait_for(
        self,
        kind: str,
        name: str,
        condition: Callable[[Object], bool],
        what: str,
        *,
        namespace: str | None = None,
        seconds: float,
    ) -> Object:
        """Watch one object until the condition holds, and return it so; an API server that is away is waited for.

        Raises `NotInTimeError` saying `what` was waited for, with the object as it was last seen.
        """
        deadline = time.monotonic() + seconds
        last: Object | None = None
        for last in self._states(kind, name, namespace, deadline):
            if condition(last):
                return last
        seen = json.dumps(last.get("status") if last else None, indent=1)
        raise NotInTimeError(f"{kind} {name}: not {what} within {seconds:g} s; its status at last: {seen}")

    def _states(self, kind: str, name: str, namespace: str | None, deadline: float) -> Iterator[Object]:
        command = [*self._base(namespace), "get", kind, name, "-o", "json", "--watch", "--output-watch-events"]
        while time.monotonic() < deadline:
            with _reading(command) as lines:
                yield from (event["object"] for event in _documents(lines, deadline) if event["type"] != "DELETED")
            # The watch ended: the object is not there yet, or the API server went away.
            time.sleep(min(RETRY_SECONDS, max(0.0, deadline - time.monotonic())))

    def wait_gone(self, kind: str, name: str, namespace: str | None = None, *, seconds: float) -> None:
        """Wait until an object is no longer there; raises `NotInTimeError`."""
        try:
            self.kubectl(
                *("wait", "--for=delete", f"{kind}/{name}", f"--timeout={seconds:g}s"),
                namespace=namespace,
                timeout=seconds + 30,
            )
        except CommandError as error:
            if "NotFound" not in error.output:
                raise NotInTimeError(f"{kind} {name} is still there after {seconds:g} s: {error}") from error

    def metrics(self, pod: str, port: int | str, namespace: str, path: str = "metrics") -> dict[str, float]:
        """The samples of a Pod's metrics page, by name with labels; raises `CommandError` when it does not answer."""
        text = self.kubectl("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}")
        return parse_metrics(text)


def parse_metrics(text: str) -> dict[str, float]:
    """A Prometheus text page as `name{labels}` → value."""
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)
    return samples


@contextmanager
def _reading(command: Sequence[str | Path]) -> Iterator[int]:
    """The standard output of a program that is ended afterwards, as a file descriptor."""
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.fileno()
        finally:
            process.kill()


def _documents(descriptor: int, deadline: float) -> Iterator[Object]:
    """The JSON documents that come one after another, until the end of the stream or the deadline."""
    decoder = json.JSONDecoder()
    characters = codecs.getincrementaldecoder("utf-8")()
    text = ""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and selector.select(left):
            block = os.read(descriptor, 1 << 20)
            if not block:
                return
            text += characters.decode(block)
            while text := text.lstrip():
                try:
                    document, end = decoder.raw_decode(text)
                except json.JSONDecodeError:
                    break
                yield document
                text = text[end:]


def condition_of(status_of: Object, kind: str) -> Object | None:
    """The condition of this type of an object; None when it has none."""
    conditions: list[Object] = (status_of.get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), None)
