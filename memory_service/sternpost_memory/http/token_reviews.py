"""Ask the Kubernetes API server whose token that is."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sternpost_memory.errors import AuthorizationUnavailable, SettingsError
from sternpost_memory.http.grants import Identity

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a Pod finds its own token and the API server's certificate."""
TIMEOUT_SECONDS = 3.0
PATH = "/apis/authentication.k8s.io/v1/tokenreviews"

log = structlog.get_logger(__name__)


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _User(_Lenient):
    username: str = ""
    groups: list[str] = Field(default_factory=list)


class _Status(_Lenient):
    authenticated: bool = False
    audiences: list[str] = Field(default_factory=list)
    user: _User = _User()


class _Review(_Lenient):
    status: _Status


class TokenReviews:
    """The API server of the cluster that this process runs in, asked for tokens with one audience.

    Raises:
        SettingsError: this process does not run in a Pod.
    """

    def __init__(
        self,
        audience: str,
        *,
        environment: Mapping[str, str] = os.environ,
        folder: Path = SERVICE_ACCOUNT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise SettingsError(
                "--token-review needs the Kubernetes API: KUBERNETES_SERVICE_HOST is not set, so this is no Pod; "
                "give --token-file instead"
            )
        self._audience = audience
        self._url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._folder = folder
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._own_token()

    async def review(self, token: str) -> Identity | None:
        """Whose token it is; None if it is not valid, or not for this service.

        Raises:
            AuthorizationUnavailable: the API server did not say.
        """
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        try:
            # Read for each review: the kubelet changes it long before it ends.
            headers = {"Authorization": f"Bearer {self._own_token()}"}
            response = await self._connected().post(PATH, json=body, headers=headers)
        except (httpx.HTTPError, OSError, SettingsError) as error:
            await self._disconnect()
            # The kind alone: no text of an error gets a chance to carry a token into the log.
            raise self._unavailable(f"the API server {self._url} does not answer ({type(error).__name__})") from error
        if response.status_code not in {200, 201}:
            why = f"the API server answered {response.status_code} to a TokenReview"
            if response.status_code in {401, 403}:
                why += ": bind this service's account to the ClusterRole system:auth-delegator"
            raise self._unavailable(why)
        try:
            status = _Review.model_validate_json(response.content).status
        except ValidationError as error:
            raise self._unavailable("the API server's answer is no TokenReview") from error
        # A server that knows nothing of audiences leaves them out: then the token may have been meant for anyone.
        if not status.authenticated or self._audience not in status.audiences:
            return None
        return Identity(username=status.user.username, groups=frozenset(status.user.groups))

    def _unavailable(self, why: str) -> AuthorizationUnavailable:
        log.error("a token cannot be checked now", why=why)
        return AuthorizationUnavailable(why)

    def _own_token(self) -> str:
        path = self._folder / "token"
        try:
            return path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"--token-review needs this Pod's own token, and {path} cannot be read: set "
                "automountServiceAccountToken: true, or give --token-file instead"
            ) from error

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            options: dict[str, Any] = {"transport": self._transport}
            if self._transport is None:
                options = {"verify": ssl.create_default_context(cafile=str(self._folder / "ca.crt"))}
            self._client = httpx.AsyncClient(base_url=self._url, timeout=TIMEOUT_SECONDS, trust_env=False, **options)
        return self._client

    async def _disconnect(self) -> None:
        # The next review reads the certificate anew, which may have changed.
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
