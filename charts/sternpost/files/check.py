"""What `helm test` runs: does the release do what it is there for? Standard library only.

Each check is tried until it holds or its time is up; the first that does not hold ends the test with its reason.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REQUEST_SECONDS = 10
PAUSE_SECONDS = 1.0
LEASE = "sternpost-operator"
STALE_SECONDS = 60
SPACE = "sternpost-test"
KINDS = frozenset({"TrainingJob", "Attempt", "Anomaly"})


class CheckError(Exception):
    """A check does not hold yet."""


def ask(url: str, *, token: str = "", authority: str = "", body: object = None, key: str = "") -> Any:
    """The JSON (or text) of an answer; raises `CheckError` where there is no good one."""
    headers = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {Path(token).read_text(encoding='ascii').strip()}"
    if key:
        headers["Idempotency-Key"] = key
    data = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 -- the chart's own addresses
    context = ssl.create_default_context(cafile=authority) if authority else None
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS, context=context) as answer:  # noqa: S310
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        raise CheckError(f"{url}: {error.code} {error.read(500).decode(errors='replace')}") from error
    except OSError as error:
        raise CheckError(f"{url}: {error}") from error
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_resources(api: str, token: str, authority: str) -> str:
    """The API server serves the three resources."""
    found = ask(f"{api}/apis/sternpost.dev/v1alpha1", token=token, authority=authority)
    missing = KINDS - {entry["kind"] for entry in found["resources"]}
    if missing:
        raise CheckError(
            f"the API server does not serve {', '.join(sorted(missing))}: install the chart with crds.install=true"
        )
    return "the API server serves TrainingJob, Attempt and Anomaly"


def check_operator(operator: str) -> str:
    """The operator's replicas say that they are ready."""
    ask(f"{operator}/readyz")
    return "the operator is ready"


def check_leader(api: str, namespace: str, token: str, authority: str) -> str:
    """One of them holds the Lease, and renews it."""
    lease = ask(
        f"{api}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}", token=token, authority=authority
    )
    holder, renewed = lease["spec"].get("holderIdentity"), lease["spec"].get("renewTime")
    if not holder or not renewed:
        raise CheckError("no operator leads")
    age = (datetime.now(UTC) - datetime.fromisoformat(renewed)).total_seconds()
    if age > STALE_SECONDS:
        raise CheckError(f"{holder} leads, but has not renewed its Lease for {age:.0f} s")
    return f"{holder} leads"


def check_memory(memory: str, token: str) -> str:
    """What is written into the memory service is found again."""
    word = f"helmtest{uuid.uuid4().hex[:12]}"
    body = {
        "observations": [
            {
                "text": f"helm test says {word}",
                "occurredAt": time.time(),
                "source": "helm-test",
                "entities": ["release/test"],
            }
        ]
    }
    ask(f"{memory}/v1/spaces/{SPACE}/observations", token=token, body=body, key=word)
    hits = ask(f"{memory}/v1/spaces/{SPACE}/search", token=token, body={"query": word, "limit": 5})["hits"]
    if not any(word in hit["text"] for hit in hits):
        raise CheckError(f"the memory service has taken an observation and does not find it: {hits}")
    return "the memory service finds what it was told"


def until(check: Callable[[], str], seconds: float) -> str:
    """The check's answer once it holds; raises the last `CheckError` when the time is up."""
    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except CheckError:
            if time.monotonic() >= end:
                raise
        time.sleep(PAUSE_SECONDS)


def checks(environment: dict[str, str]) -> list[Callable[[], str]]:
    """All that apply to this release."""
    account = environment.get("SERVICE_ACCOUNT_DIR", "/var/run/secrets/kubernetes.io/serviceaccount")
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
    api = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    token, authority = f"{account}/token", f"{account}/ca.crt"
    found = [
        lambda: check_resources(api, token, authority),
        lambda: check_operator(environment["OPERATOR_URL"]),
        lambda: check_leader(api, environment["NAMESPACE"], token, authority),
    ]
    if environment.get("MEMORY_URL"):
        found.append(lambda: check_memory(environment["MEMORY_URL"], environment["MEMORY_TOKEN_FILE"]))
    return found


def main() -> None:
    """Run them; exit code 1 with the reason of the first that does not hold."""
    seconds = float(os.environ.get("TIMEOUT_SECONDS", "60"))
    for check in checks(dict(os.environ)):
        try:
            sys.stdout.write(f"ok: {until(check, seconds)}\n")
            sys.stdout.flush()
        except CheckError as error:
            sys.exit(f"failed after {seconds:g} s: {error}")


if __name__ == "__main__":
    main()
