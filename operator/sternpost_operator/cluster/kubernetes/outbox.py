"""The ConfigMap that keeps incidents of deleted jobs until the memory service has taken them."""

from __future__ import annotations

from collections.abc import Sequence

from sternpost_operator.cluster.kubernetes.client import KubernetesClient
from sternpost_operator.cluster.kubernetes.errors import NotFoundError
from sternpost_operator.cluster.kubernetes.letters import Letter, packed, unpacked
from sternpost_operator.cluster.kubernetes.paths import CONFIG_MAPS

NAME = "sternpost-outbox"
_KEY = "letters"


class Outbox:
    """In the operator's namespace; only the leader uses it. There is none until the first incident must be kept."""

    def __init__(self, client: KubernetesClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._stored = ""

    async def load(self) -> list[Letter]:
        """What an operator before left; raises `OSError`."""
        try:
            found = await self._client.get(CONFIG_MAPS, self._namespace, NAME)
        except NotFoundError:
            return []
        data = found.get("data")
        text = data.get(_KEY) if isinstance(data, dict) else None
        self._stored = text if isinstance(text, str) else ""
        return unpacked(self._stored)

    async def save(self, letters: Sequence[Letter]) -> None:
        """Keep these and no others; nothing is sent if that is so already. Raises `OSError`."""
        text = packed(letters)
        if text == self._stored:
            return
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": NAME,
                "namespace": self._namespace,
                "labels": {"app.kubernetes.io/managed-by": "sternpost"},
            },
            "data": {_KEY: text},
        }
        await self._client.apply(CONFIG_MAPS, self._namespace, manifest)
        self._stored = text
