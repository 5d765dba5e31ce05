"""The control plane on a cluster: one Attempt is watched, Anomalies are applied on the server side."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import structlog

from sternpost_eagle_eye.attempt import MAX_ATTEMPT_BYTES
from sternpost_eagle_eye.control_plane.attempt_document import AttemptDocument, parse_attempt
from sternpost_eagle_eye.control_plane.kubernetes_api import ApiAccess, ApiError, ApiServer
from sternpost_eagle_eye.control_plane.kubernetes_watch import (
    LONGEST_DELAY_SECONDS,
    BackOff,
    EventKind,
    LineSplitter,
    WatchError,
    parse_event,
    version_of,
    without_managed_fields,
)
from sternpost_eagle_eye.report import Anomaly

FIELD_MANAGER = "sternpost-eagle-eye"
WATCH_SECONDS = (300.0, 600.0)
"""How long a watch is asked to last, at random, so that not all of a job's are renewed at once."""
MAX_ANOMALY_BYTES = 256 * 1024
MAX_REMEMBERED = 1024

_API = "/apis/sternpost.dev/v1alpha1"

log = structlog.get_logger()


class KubernetesControlPlane:
    """`random_share` gives numbers from 0 to 1."""

    def __init__(
        self,
        access: ApiAccess,
        *,
        namespace: str,
        job: str,
        job_uid: str,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        self._api = ApiServer(access)
        self._job = job
        self._job_uid = job_uid
        self._attempts_path = f"{_API}/namespaces/{namespace}/attempts"
        self._anomalies_path = f"{_API}/namespaces/{namespace}/anomalies"
        self._random = random_share
        self._version: str | None = None
        """Where the watch goes on; None before a list, and when that version is gone."""
        self._first_seen: dict[str, str] = {}
        self._trouble = ""

    async def attempts(self) -> AsyncIterator[AttemptDocument]:
        """As `ControlPlane.attempts`; an API server that is away or confused is asked again, less and less often."""
        back_off = BackOff()
        while True:
            trouble = ""  # none: a watch ends when its time is over
            try:
                async with contextlib.aclosing(self._list_and_watch(back_off)) as documents:
                    async for document in documents:
                        yield document
            except (ApiError, WatchError) as error:
                self._version, trouble = None, str(error)
            except OSError as error:
                trouble = str(error)
            self._say(trouble)
            await asyncio.sleep(back_off.delay(self._random()))

    async def current(self) -> AttemptDocument | None:
        """As `ControlPlane.current`; the API server reads it from the majority of its storage."""
        try:
            value = await self._api.get(f"{self._attempts_path}/{self._job}", {}, limit=MAX_ATTEMPT_BYTES)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        try:
            return self._document(value)
        except ValueError as error:
            raise OSError(f"attempt {self._job}: {error}") from error

    async def write_anomaly(self, anomaly: Anomaly) -> None:
        """As `ControlPlane.write_anomaly`: applied whole, so that writing it again after a lost answer changes nothing."""
        path = f"{self._anomalies_path}/{anomaly.name}"
        manifest = anomaly.manifest
        first_seen = self._first_seen.get(anomaly.name) or await self._stored_first_seen(path)
        if first_seen is not None and first_seen < manifest["spec"]["firstSeen"]:
            manifest = {**manifest, "spec": {**manifest["spec"], "firstSeen": first_seen}}
        manifest = {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [self._owner()]}}
        await self._api.apply(path, {"fieldManager": FIELD_MANAGER, "force": "true"}, manifest)
        if len(self._first_seen) >= MAX_REMEMBERED:
            self._first_seen.clear()  # those are of old attempts; at worst one is read again
        self._first_seen[anomaly.name] = manifest["spec"]["firstSeen"]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._api.aclose()

    async def _list_and_watch(self, back_off: BackOff) -> AsyncGenerator[AttemptDocument]:
        only = {"fieldSelector": f"metadata.name={self._job}"}
        if self._version is None:
            listed = await self._api.get(self._attempts_path, only, limit=MAX_ATTEMPT_BYTES)
            version, items = version_of(listed), listed.get("items")
            for value in items if isinstance(items, list) else []:
                document = self._read(value)
                if document is not None:
                    yield document
            self._version = version
        shortest, longest = WATCH_SECONDS
        parameters = {
            **only,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": f"{shortest + (longest - shortest) * self._random():.0f}",
        }
        lines, clock = LineSplitter(MAX_ATTEMPT_BYTES), asyncio.get_running_loop().time
        async with self._api.watch(self._attempts_path, parameters) as chunks:
            self._say("")
            opened = clock()
            async for chunk in chunks:
                for line in lines.feed(chunk):
                    event = parse_event(line)
                    if event is None:
                        continue
                    self._version = event.version
                    back_off.succeeded()
                    document = self._read(event.value) if event.kind is EventKind.CHANGED else None
                    if document is not None:
                        yield document
            if clock() - opened > LONGEST_DELAY_SECONDS:  # quiet, and not refused
                back_off.succeeded()

    def _read(self, value: Any) -> AttemptDocument | None:
        """None, and a warning, for what is no Attempt."""
        try:
            return self._document(value)
        except ValueError as error:
            log.warning("attempt ignored, the one before stands", name=self._job, error=str(error)[:500])
            return None

    def _document(self, value: Any) -> AttemptDocument | None:
        return parse_attempt(without_managed_fields(value), self._job_uid)

    async def _stored_first_seen(self, path: str) -> str | None:
        """RFC 3339 in UTC, which sorts as text; None if there is no such object, or none that says it."""
        try:
            value = await self._api.get(path, {}, limit=MAX_ANOMALY_BYTES)
            first_seen = value["spec"]["firstSeen"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        except (KeyError, TypeError):
            return None
        return first_seen if isinstance(first_seen, str) and first_seen.endswith("Z") else None

    def _owner(self) -> dict[str, str]:
        """The job: Kubernetes deletes the anomaly after it."""
        return {"apiVersion": "sternpost.dev/v1alpha1", "kind": "TrainingJob", "name": self._job, "uid": self._job_uid}

    def _say(self, trouble: str) -> None:
        """Once for each change, not once for each try."""
        if trouble != self._trouble:
            if trouble:
                log.warning("the attempt is not being watched, trying again", name=self._job, error=trouble[:500])
            else:
                log.info("the attempt is being watched again", name=self._job)
            self._trouble = trouble
