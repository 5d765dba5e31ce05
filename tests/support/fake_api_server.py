"""An HTTP server on the loopback that answers as it is told, request by request: whole, in parts, late, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Answer:
    """One response, written piece by piece."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def whole(self, status: int, content: bytes | dict[str, Any]) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        await self.raw(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    async def stream(self) -> None:
        """Begin a body in chunks."""
        await self.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def event(self, kind: str, value: Any) -> None:
        await self.chunk(json.dumps({"type": kind, "object": value}).encode() + b"\n")

    async def chunk(self, content: bytes) -> None:
        await self.raw(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def raw(self, content: bytes) -> None:
        self._writer.write(content)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def silence(self) -> None:
        """Until the client goes away."""
        await asyncio.Event().wait()


Behaviour = Callable[[Asked, Answer], Awaitable[None]]


class FakeApiServer:
    """Each request is given to the next behaviour; the last one answers all that follow."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)
        self.asked: list[Asked] = []
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeApiServer]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while True:
                asked = await self._read(reader)
                self.asked.append(asked)
                behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
                await behaviour(asked, Answer(writer))
        except (ConnectionError, asyncio.IncompleteReadError, CutError):
            pass
        except asyncio.CancelledError:
            return  # the test is over
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        return Asked(method, parts.path, query, headers, body)


class CutError(Exception):
    """Raised by a behaviour: the connection ends in the middle."""
