"""Bad manifests against a real API server, with an operator behind it: what becomes of each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
from bad_manifests import BadManifest, valid

API = "/apis/sternpost.dev/v1alpha1"
STRICT = {"fieldValidation": "Strict", "fieldManager": "fuzz"}
TOGETHER = 4
REFUSALS = frozenset({400, 403, 404, 409, 413, 422})
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome:
    """Of one bad manifest."""

    bad: BadManifest
    name: str
    status: int
    answer: str
    """What the API server said."""

    @property
    def refused(self) -> bool:
        """By the API server; a 404 is for a kind that there is none of, a 500 for what its own storage finds too large."""
        return self.status in REFUSALS or (self.status == 500 and "too large" in self.answer)


class Trial:
    """In one namespace, of which all TrainingJobs are this trial's."""

    def __init__(self, api: httpx.Client, namespace: str) -> None:
        self._api = api
        self._jobs = f"{API}/namespaces/{namespace}/trainingjobs"

    def post(self, bad: BadManifest, name: str) -> Outcome:
        """Create it; a change is made to a valid job instead."""
        if bad.update:
            stored = self._api.get(f"{self._jobs}/steady").json()
            changed = {**bad.manifest, "metadata": stored["metadata"]}
            response = self._api.put(f"{self._jobs}/steady", params=STRICT, json=changed)
        else:
            headers = {"Content-Type": "application/json"}
            response = self._api.post(self._jobs, params=STRICT, content=bad.text(name).encode(), headers=headers)
        return Outcome(bad, name, response.status_code, response.text[:2000])

    def post_all(self, bads: Iterable[BadManifest]) -> list[Outcome]:
        """All of them, each under a name of its own unless the name is the mistake."""
        steady = valid("steady")
        steady["spec"]["suspend"] = True
        self._api.post(self._jobs, params=STRICT, json=steady).raise_for_status()
        numbered = [(bad, f"bad-{index}") for index, bad in enumerate(bads)]
        with ThreadPoolExecutor(TOGETHER) as pool:
            return list(pool.map(lambda pair: self.post(*pair), numbered))

    def jobs(self) -> dict[str, dict[str, Any]]:
        """All that are stored, by name; read as bytes, for one of them may be nested beyond what Python reads."""
        found: dict[str, dict[str, Any]] = {}
        columns = "application/json;as=Table;v=v1;g=meta.k8s.io"
        table = self._api.get(self._jobs, headers={"Accept": columns}, params={"includeObject": "Metadata"})
        for row in table.raise_for_status().json()["rows"]:
            name = row["object"]["metadata"]["name"]
            found[name] = self._status(name)
        return found

    def _status(self, name: str) -> dict[str, Any]:
        content = self._api.get(f"{self._jobs}/{name}").content
        try:
            status = json.loads(content).get("status") or {}
        except RecursionError:
            # The status comes last, after the spec that is nested so deeply.
            at = content.rfind(b'"status":{')
            status = json.loads(content[at + len(b'"status":') : -2]) if at >= 0 else {}
        return status

    def told(self, name: str, field: str) -> bool:
        """Whether a condition says no and names the field."""
        return any(
            each["status"] == "False" and field.lower() in each.get("message", "").lower()
            for each in self._status(name).get("conditions") or []
        )

    def wait_told(self, accepted: Iterable[Outcome], seconds: float) -> list[Outcome]:
        """Those of which no condition tells in time."""
        deadline, waiting = time.monotonic() + seconds, list(accepted)
        while waiting and time.monotonic() < deadline:
            waiting = [outcome for outcome in waiting if not self.told(outcome.name, outcome.bad.field)]
            time.sleep(POLL_SECONDS)
        return waiting

    def describe(self, outcome: Outcome) -> str:
        """For a message: what was done, and what the job says of itself."""
        conditions = [
            f"{each['type']}={each['status']}: {each.get('message', '')[:300]}"
            for each in self._status(outcome.name).get("conditions") or []
        ]
        return f"{outcome.bad.name}: HTTP {outcome.status}, conditions {conditions}"
