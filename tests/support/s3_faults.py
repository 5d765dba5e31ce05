"""Between a client and a real S3 server on loopback: passes everything on, but for the faults that a test asks for."""

from __future__ import annotations

import http.client
import re
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>{}</Message></Error>'


class Fault(StrEnum):
    SLOW_DOWN = "slow-down"
    """503 SlowDown, as S3 throttles; the server never hears of the request."""
    CONFLICT = "conflict"
    """409 ConditionalRequestConflict; the server never hears of the request."""
    CUT = "cut"
    """The connection ends before the server hears of the request."""
    LOST_ANSWER = "lost-answer"
    """The server does it, and the connection ends before it has answered."""
    SHORT_BODY = "short-body"
    """The answer's body ends in its middle."""


@dataclass
class Plan:
    """Do `fault` to the next `times` requests that match."""

    fault: Fault
    times: int
    method: str = ""
    path: str = ""

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in ("", method) and re.search(self.path, path) is not None


@dataclass
class FaultyProxy:
    """Listens on a port of its own; `plan` says what goes wrong."""

    upstream_port: int
    plans: list[Plan] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    """(method, path) of every request."""
    injected: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def plan(self, fault: Fault, times: int = 1, method: str = "", path: str = "") -> None:
        with self._lock:
            self.plans.append(Plan(fault, times, method, path))

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.seen.append((method, path))
            for plan in self.plans:
                if plan.matches(method, path):
                    plan.times -= 1
                    self.injected += 1
                    return plan.fault
        return None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.next_fault(self.command, self.path)
            if fault is Fault.CUT:
                self.close_connection = True
            elif fault is Fault.SLOW_DOWN:
                self._answer(503, _ERROR.format("SlowDown", "Please reduce your request rate.").encode())
            elif fault is Fault.CONFLICT:
                self._answer(409, _ERROR.format("ConditionalRequestConflict", "Conflicting operation.").encode())
            else:
                self._forward(body, fault)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815 # the names that http.server looks for

        def _forward(self, body: bytes, fault: Fault | None) -> None:
            upstream = http.client.HTTPConnection("127.0.0.1", proxy.upstream_port, timeout=60)
            try:
                # As it came, the Host included: it is part of what was signed.
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    upstream.putheader(name, value)
                upstream.endheaders(body or None)
                answer = upstream.getresponse()
                data = answer.read()
            finally:
                upstream.close()
            if fault is Fault.LOST_ANSWER:
                self.close_connection = True
                return
            length = answer.headers.get("Content-Length", str(len(data)))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if fault is Fault.SHORT_BODY:
                data, self.close_connection = data[: len(data) // 2], True
            if self.command != "HEAD":
                self.wfile.write(data)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
