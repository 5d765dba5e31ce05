"""The objects that a job's Pods need beside them: applied before the first Pod, and again for each attempt."""

from __future__ import annotations

import base64
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sternpost_operator.cluster.base import RefusedError
from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.errors import ExistsError, NotFoundError
from sternpost_operator.cluster.kubernetes.paths import SECRETS, kind_of
from sternpost_operator.cluster.kubernetes.views import owner_of
from sternpost_operator.cluster.ring_keys import new_ring_keys
from sternpost_operator.manifests.companions import owned_objects
from sternpost_operator.manifests.ring_secret import build_ring_secret, has_ring
from sternpost_operator.manifests.secret import build_secret
from sternpost_operator.manifests.volumes import TOKEN_KEY
from sternpost_operator.resources.names import ring_secret_name, secret_name
from sternpost_operator.resources.training_job import TrainingJob

MAX_REMEMBERED = 10_000
RING_SECONDS = 3600.0
"""How long the keys of a ring count as there once they were seen."""


class OwnedObjects:
    """Service account, role, binding, service, network policy, token and ring keys of each job."""

    def __init__(
        self,
        client: KubernetesClient,
        operator_namespace: str,
        metrics_namespaces: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._operator_namespace = operator_namespace
        self._metrics_namespaces = tuple(metrics_namespaces)
        self._tokens: OrderedDict[str, str] = OrderedDict()
        self._applied: OrderedDict[tuple[str, int, int], None] = OrderedDict()
        self._clock = clock
        self._ring_seen: OrderedDict[str, float] = OrderedDict()

    async def ensure(self, job: TrainingJob) -> None:
        """See to it that all are there as they shall be. Done once for each spec and attempt; the ring's keys each hour.

        Raises `RefusedError`, also where an object of the name belongs to somebody else, and `OSError`.
        """
        await self._ensure_ring(job)
        done = (job.metadata.uid, job.metadata.generation, job.status.attempt.number)
        if done in self._applied:
            return
        token = await self.token(job)
        for manifest in owned_objects(
            job,
            token=token,
            operator_namespace=self._operator_namespace,
            metrics_namespaces=self._metrics_namespaces,
        ):
            kind = kind_of(manifest)
            if kind is not SECRETS:  # there it is already, and nothing may change the token
                await self._client.apply(kind, job.metadata.namespace, manifest)
        _remember(self._applied, done, None)

    async def token(self, job: TrainingJob) -> str:
        """What the job's sidecars and the operator show each other; made once, never changed.

        Raises `RefusedError` where the Secret is not the job's, and `OSError`.
        """
        known = self._tokens.get(job.metadata.uid)
        if known is not None:
            return known
        namespace, name = job.metadata.namespace, secret_name(job.metadata.name)
        try:
            secret = await self._client.get(SECRETS, namespace, name)
        except NotFoundError:
            manifest = build_secret(job, secrets.token_urlsafe(32))
            try:
                secret = await self._client.create(SECRETS, namespace, manifest)
            except ExistsError:
                secret = await self._client.get(SECRETS, namespace, name)
        token = _token_in(secret, job)
        _remember(self._tokens, job.metadata.uid, token)
        return token

    async def _ensure_ring(self, job: TrainingJob) -> None:
        """Make the keys of the job's ring where there are none: whoever wants other ones removes the Secret."""
        uid, now = job.metadata.uid, self._clock()
        if not has_ring(job) or now - self._ring_seen.get(uid, float("-inf")) < RING_SECONDS:
            return
        namespace, name = job.metadata.namespace, ring_secret_name(job.metadata.name)
        try:
            secret = await self._client.get(SECRETS, namespace, name)
        except NotFoundError:
            manifest = build_ring_secret(job, new_ring_keys(uid, datetime.now(UTC)))
            try:
                secret = await self._client.create(SECRETS, namespace, manifest)
            except ExistsError:
                secret = await self._client.get(SECRETS, namespace, name)
        _check_owner(secret, job, name)
        _remember(self._ring_seen, uid, now)

    def forget(self, uid: str) -> None:
        """The job with this uid is gone."""
        self._tokens.pop(uid, None)
        self._ring_seen.pop(uid, None)


def _check_owner(secret: dict[str, Any], job: TrainingJob, name: str) -> None:
    owner = owner_of(secret.get("metadata") or {})
    if owner != job.metadata.uid:
        if owner:
            raise OSError(f"Secret {name} is of an earlier job of this name; waiting until it is removed")
        raise RefusedError(f"Secret {name} is not this job's; remove it, or give the job another metadata.name")


def _token_in(secret: dict[str, Any], job: TrainingJob) -> str:
    name = secret_name(job.metadata.name)
    _check_owner(secret, job, name)
    try:
        token = base64.b64decode((secret.get("data") or {})[TOKEN_KEY], validate=True).decode("ascii")
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError(f"Secret {name} holds no token; remove it, and a new one is made") from error
    if not token or not token.isprintable():
        raise RefusedError(f"Secret {name} holds no token; remove it, and a new one is made")
    return token


def _remember(known: OrderedDict[Any, Any], key: object, value: object) -> None:
    known[key] = value
    if len(known) > MAX_REMEMBERED:
        known.popitem(last=False)
