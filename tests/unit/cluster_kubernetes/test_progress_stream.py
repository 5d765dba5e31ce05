from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web

from sternpost_operator.cluster.kubernetes.inventory import JobKey
from sternpost_operator.cluster.kubernetes.progress_stream import FRESH_SECONDS, ProgressStreams, Source

KEY = ("team", "gpt")


def report(step: int, launcher: str = "running", attempt: str = "1-a") -> dict[str, Any]:
    worker = {"index": 0, "pod": "gpt-0", "node": "n", "seenAt": 1.0, "attempt": attempt, "launcher": launcher}
    return {"attempt": attempt, "attemptNumber": 1, "at": float(step), "step": step, "workers": [worker]}


class EagleEye:
    """Answers each request for the stream as told, in turn."""

    def __init__(self, *answers: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.answers = list(answers)
        self.tokens: list[str | None] = []
        self.woken = asyncio.Event()
        self.news: list[JobKey] = []
        self.now = 0.0

    def on_news(self, key: JobKey) -> None:
        self.news.append(key)
        self.woken.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization"))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)

    async def run(self, test: Callable[[ProgressStreams, int], Awaitable[None]]) -> None:
        app = web.Application()
        app.add_routes([web.get("/v1/progress/stream", self._answer)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            streams = ProgressStreams(session, self.on_news, clock=lambda: self.now)
            await asyncio.wait_for(test(streams, runner.addresses[0][1]), 20)
            await streams.aclose()
        await runner.cleanup()


def lines(*reports: dict[str, Any] | bytes, then_waits: bool = True) -> Any:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for each in reports:
            await response.write(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n")
        if then_waits:
            await asyncio.Event().wait()
        return response

    return answer


async def refuse(_: web.Request) -> web.StreamResponse:
    return web.json_response({"title": "no attempt runs"}, status=404)


async def token() -> str:
    return "secret"


async def until(eagle_eye: EagleEye, test: Callable[[], object]) -> None:
    while not test():
        eagle_eye.woken.clear()
        if test():
            return
        await eagle_eye.woken.wait()


def test_news_wake_the_job_and_steps_do_not() -> None:
    async def go() -> None:
        eagle_eye = EagleEye(lines(report(1), report(2), report(3), report(4, "failed"), report(5, "failed")))

        async def test(streams: ProgressStreams, port: int) -> None:
            streams.follow(KEY, Source("1-a", "127.0.0.1", port), token)
            await until(eagle_eye, lambda: len(eagle_eye.news) == 2)
            newest = streams.newest(KEY)
            assert newest is not None
            assert newest.step in (4, 5)
            eagle_eye.now += FRESH_SECONDS + 1
            assert streams.newest(KEY) is None, "an old report is no answer"
            assert streams.last(KEY) is not None
            streams.follow(KEY, None, token)
            assert streams.last(KEY) is None

        await eagle_eye.run(test)
        assert eagle_eye.news == [KEY, KEY]
        assert eagle_eye.tokens == ["Bearer secret"]

    asyncio.run(go())


def test_it_asks_again_until_there_is_something_to_tell_and_after_the_end() -> None:
    async def go() -> None:
        eagle_eye = EagleEye(refuse, lines(report(1), then_waits=False), lines(report(2, "failed")))

        async def test(streams: ProgressStreams, port: int) -> None:
            source = Source("1-a", "127.0.0.1", port)
            streams.follow(KEY, source, token)
            await until(eagle_eye, lambda: len(eagle_eye.news) == 2)
            streams.follow(KEY, source, token)  # the same: nothing begins anew
            newest = streams.newest(KEY)
            assert newest is not None
            assert newest.step == 2

        await eagle_eye.run(test)
        assert len(eagle_eye.tokens) == 3

    asyncio.run(go())


def test_garbage_and_reports_of_other_attempts_are_passed_over() -> None:
    async def go() -> None:
        garbage = b'nonsense\n\n{"attempt": 7}\n'
        eagle_eye = EagleEye(lines(garbage, report(1, attempt="9-z"), report(2)))

        async def test(streams: ProgressStreams, port: int) -> None:
            streams.follow(KEY, Source("1-a", "127.0.0.1", port), token)
            await until(eagle_eye, lambda: eagle_eye.news)
            newest = streams.newest(KEY)
            assert newest is not None
            assert (newest.attempt, newest.step) == ("1-a", 2)

        await eagle_eye.run(test)

    asyncio.run(go())
