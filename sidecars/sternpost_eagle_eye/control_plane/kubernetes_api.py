"""The API server of the cluster that the Pod runs in: found, spoken to with the Pod's own account, bounded in time and size."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from sternpost_eagle_eye.config import ConfigError, Settings
from sternpost_eagle_eye.files import Signature, read_bounded, signature

MAX_TOKEN_BYTES = 64 * 1024
MAX_ERROR_BYTES = 64 * 1024
MAX_MESSAGE = 300
"""Characters of an answer that an error quotes."""

REQUEST_SECONDS = 10.0
"""For a whole request that is not a watch."""
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 100.0
"""A watch that says nothing for so long is dead: the API server sends a bookmark each minute."""

_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"  # JSON is YAML

# A peer that vanished without a word is found out long before a bookmark is missed.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)


class ApiError(OSError):
    """The API server refused, or answered what is no answer. `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the API server answered {status}: {message[:MAX_MESSAGE]}")
        self.status = status


@dataclass(frozen=True)
class ApiAccess:
    """Where the API server is, and what to show it. The files are read again whenever they are needed: both rotate."""

    url: str
    token: Path
    ca: Path | None
    """Certificates that vouch for the server; None for plain HTTP."""


def access_of(settings: Settings) -> ApiAccess:
    """As every Pod is told. Raises ConfigError outside a cluster."""
    host, port = settings.kubernetes_host, settings.kubernetes_port
    if not host or not port:
        raise ConfigError(
            "STERNPOST_CONTROL_PLANE=kubernetes: needs KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, which the"
            " kubelet sets in every Pod; outside a cluster use file:///absolute/path"
        )
    folder = settings.service_account_dir
    return ApiAccess(f"https://{f'[{host}]' if ':' in host else host}:{port}", folder / "token", folder / "ca.crt")


class ApiServer:
    """Requests as the Pod's account. All calls raise OSError when there is no answer, ApiError for a refusal."""

    def __init__(self, access: ApiAccess) -> None:
        self._access = access
        self._client: httpx.AsyncClient | None = None
        self._ca_seen: Signature | None = None

    async def aclose(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def get(self, path: str, parameters: Mapping[str, str], *, limit: int) -> dict[str, Any]:
        """An object or a list of at most `limit` bytes."""
        async with self._send("GET", path, parameters, seconds=REQUEST_SECONDS) as response:
            return _object(await _body(response, limit))

    async def apply(self, path: str, parameters: Mapping[str, str], manifest: Mapping[str, Any]) -> None:
        """Server-side apply."""
        content = json.dumps(manifest).encode()
        async with self._send("PATCH", path, parameters, content=content, seconds=REQUEST_SECONDS) as response:
            await _body(response, MAX_ERROR_BYTES + len(content) * 8)

    @contextlib.asynccontextmanager
    async def watch(self, path: str, parameters: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """A stream of bytes that ends when the server ends it; silence beyond SILENCE_SECONDS is an OSError."""
        async with self._send("GET", path, {**parameters, "watch": "1"}, seconds=None) as response:
            yield response.aiter_raw()

    @contextlib.asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        *,
        seconds: float | None,
        content: bytes | None = None,
    ) -> AsyncIterator[httpx.Response]:
        headers = {"Authorization": f"Bearer {self._token()}", "Accept": _JSON, "Accept-Encoding": "identity"}
        if content is not None:
            headers["Content-Type"] = _APPLY
        timeout = httpx.Timeout(CONNECT_SECONDS, read=SILENCE_SECONDS if seconds is None else seconds)
        client = await self._current_client()
        try:
            async with (
                asyncio.timeout(seconds),
                client.stream(
                    method, path, params=dict(parameters), headers=headers, content=content, timeout=timeout
                ) as response,
            ):
                if response.status_code >= 300:
                    raise ApiError(response.status_code, _message(await _body(response, MAX_ERROR_BYTES)))
                yield response
        except TimeoutError as error:
            raise OSError(f"no answer from the API server at {self._access.url} within {seconds or 0:g} s") from error
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            raise OSError(f"the API server at {self._access.url}: {type(error).__name__}: {error}") from error

    def _token(self) -> str:
        """Raises OSError when there is none, or garbage."""
        try:
            token = read_bounded(self._access.token, MAX_TOKEN_BYTES).strip().decode("ascii")
        except UnicodeDecodeError:
            token = ""
        if not token or not token.isprintable():
            raise OSError(f"no service account token in {self._access.token}")
        return token

    async def _current_client(self) -> httpx.AsyncClient:
        """With the certificates of now."""
        ca = self._access.ca
        seen = signature(ca) if ca is not None else None
        if self._client is None or seen != self._ca_seen:
            verify: ssl.SSLContext | bool = False
            if ca is not None:
                try:
                    verify = ssl.create_default_context(cadata=read_bounded(ca, 2**20).decode("ascii"))
                except ValueError as error:
                    raise OSError(f"no certificates in {ca}: {error}") from error
            await self.aclose()
            transport = httpx.AsyncHTTPTransport(verify=verify, trust_env=False, socket_options=_KEEPALIVE)
            # No proxies from the environment: they are for the world outside of the cluster.
            self._client = httpx.AsyncClient(
                base_url=self._access.url, transport=transport, trust_env=False, follow_redirects=False
            )
            self._ca_seen = seen
        return self._client


async def _body(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise ApiError(response.status_code, f"with more than {limit} bytes")
    return bytes(body)


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise OSError(f"the API server's answer is no JSON: {str(error)[:MAX_MESSAGE]}") from error
    if not isinstance(value, dict):
        raise OSError("the API server's answer is no JSON object")
    return value


def _message(content: bytes) -> str:
    """Of a Status object; otherwise the text."""
    try:
        return str(_object(content)["message"])
    except (OSError, KeyError):
        return content[:MAX_MESSAGE].decode("utf-8", errors="replace")
