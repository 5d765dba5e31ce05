"""The API server's HTTP as it is, past kubectl's own checks."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

SECONDS = 60.0


@contextmanager
def api_proxy(kubectl: Path, kubeconfig: Path) -> Iterator[httpx.Client]:
    """A client that speaks as the kubeconfig's user, through `kubectl proxy` on a free port of the loopback."""
    command = [str(kubectl), "--kubeconfig", str(kubeconfig), "proxy", "--port=0", "--address=127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"127\.0\.0\.1:([0-9]+)", process.stdout.readline())
            assert found, "kubectl proxy does not say where it listens"
            with httpx.Client(
                base_url=f"http://127.0.0.1:{found[1]}", trust_env=False, timeout=SECONDS, follow_redirects=False
            ) as client:
                yield client
        finally:
            process.kill()
