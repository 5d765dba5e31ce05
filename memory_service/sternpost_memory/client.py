"""A small client of the HTTP interface, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from sternpost_memory.errors import ClientError

TIMEOUT_SECONDS = 30.0


class Client:
    """Talks to one space of a memory service; use it with `with`.

    Raises:
        ClientError: from every method, if there is no good answer.
    """

    def __init__(self, url: str, space: str, token_file: Path | None = None) -> None:
        headers = {}
        if token_file is not None:
            try:
                headers["Authorization"] = f"Bearer {token_file.read_text(encoding='ascii').strip()}"
            except (OSError, UnicodeDecodeError) as error:
                raise ClientError(f"the token in {token_file} cannot be read: {error}") from error
        self._url = url
        self._space = quote(space, safe="")
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        """Hits, best first."""
        answer = self._ask("POST", "/search", json={"query": query, "limit": limit}).json()
        hits: list[dict[str, Any]] = answer["hits"]
        return hits

    def topics(self) -> list[dict[str, Any]]:
        """The headers of all topics."""
        found: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self._ask("GET", "/topics", params={"limit": "200", "cursor": cursor}).json()
            found += page["topics"]
            cursor = page["next"]
        return found

    def document(self, topic: str) -> str:
        """A topic as Markdown."""
        return self._ask("GET", f"/topics/{quote(topic, safe='')}", headers={"Accept": "text/markdown"}).text

    def history(self, topic: str) -> list[dict[str, Any]]:
        """The newest versions of a topic."""
        answer = self._ask("GET", f"/topics/{quote(topic, safe='')}/history").json()
        versions: list[dict[str, Any]] = answer["versions"]
        return versions

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, f"/v1/spaces/{self._space}{path}", **arguments)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ClientError(
                f"no answer from {self._url} ({error}): is the service running there? Give --url otherwise"
            ) from error
        if response.is_success:
            return response
        try:
            detail = response.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = response.reason_phrase
        raise ClientError(f"{self._url} answered {response.status_code}: {detail}")
