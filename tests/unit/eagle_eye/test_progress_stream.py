"""Progress as a stream: news at once, never too often, and an end."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time

import httpx
import pytest

from sternpost_eagle_eye.attempt import Attempt
from sternpost_eagle_eye.sidecar.news import News, newsworthy
from sternpost_eagle_eye.sidecar.own_metrics import OwnMetrics
from sternpost_eagle_eye.sidecar.progress_stream import Pace, progress_lines
from sternpost_eagle_eye.sidecar.server import make_app, make_server
from sternpost_eagle_eye.sidecar.token import TokenFile
from sternpost_eagle_eye.vector import CheckpointVector, LauncherVector, PageState, RankProcess, RankVector, Vector

AT_ONCE = Pace(least=0.0, most=3600.0, shares=0.0)
SOON = 10.0


class Told:
    """A court, and what is said to it."""

    def __init__(self, folder, make_attempt, make_court):
        self.folder, self.make_attempt, self.sequence = folder, make_attempt, 0
        self.metrics = OwnMetrics()
        self.court = make_court(folder, self.metrics, time.monotonic, time.time)
        self.convene()

    def convene(self, **more):
        self.court.convene(Attempt.model_validate(self.make_attempt(4, **more)))

    def say(self, worker=1, *, state="running", step=1, exit_code=None, phase="train", committed=None, **rank):
        self.sequence += 1
        vector = Vector(
            attempt=self.court.attempt.spec.id,
            pod_uid=f"uid-{worker}",
            boot="b",
            sequence=self.sequence,
            launcher=LauncherVector(
                attempt=self.court.attempt.spec.id,
                state=state,
                updated_at=float(self.sequence),
                ranks=(RankProcess(rank=worker, local_rank=0, exit_code=exit_code),),
            ),
            ranks=(RankVector(rank=worker, page=PageState.OK, step=step, phase=phase, loss=1 / step, **rank),),
            checkpoint=CheckpointVector(committed_step=committed) if committed is not None else None,
        )
        assert self.court.take(vector) is None
        return vector


@pytest.fixture
def told(tmp_path, make_attempt, make_court):
    return Told(tmp_path, make_attempt, make_court)


async def next_report(lines):
    return json.loads(await asyncio.wait_for(anext(lines), SOON))


def test_news_is_told_at_once_and_nothing_else(told):
    async def scenario():
        lines = progress_lines(told.court, AT_ONCE)
        assert (await next_report(lines))["workers"] == []
        told.say(1)
        assert [worker["pod"] for worker in (await next_report(lines))["workers"]] == ["gpt-1"]
        coming = asyncio.ensure_future(anext(lines))
        for step in range(2, 50):
            told.say(1, step=step)
            await asyncio.sleep(0)
        assert not coming.done()
        told.say(1, step=50, state="failed", exit_code=9)
        report = json.loads(await asyncio.wait_for(coming, SOON))
        assert (report["workers"][0]["launcher"], report["workers"][0]["step"]) == ("failed", 50)
        assert report["workers"][0]["firstFailure"]["exitCode"] == 9
        await lines.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "news",
    [
        {"state": "stopping"},
        {"exit_code": 1},
        {"phase": "checkpoint"},
        {"first_step": 1},
        {"restored_step": 3, "restore_at": 5.0},
        {"committed": 7},
    ],
)
def test_what_is_news(told, news):
    before, after = newsworthy(told.say(1)), newsworthy(told.say(1, **news))
    assert before != after
    assert newsworthy(told.say(1, step=900)) == before


def test_without_news_a_line_comes_now_and_then(told):
    async def scenario():
        lines = progress_lines(told.court, Pace(least=0.0, most=0.01, shares=0.0))
        for _ in range(5):
            await next_report(lines)
        await lines.aclose()

    asyncio.run(scenario())


def test_a_flood_of_news_is_told_in_few_lines(told):
    async def scenario():
        loop, lines = asyncio.get_running_loop(), progress_lines(told.court, Pace(least=0.2, most=3600.0))
        times = []
        for count in range(4):
            await next_report(lines)
            times.append(loop.time())
            for worker in range(4):  # all before the next line, the last of it only then
                told.say(worker, committed=count)
        assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.19
        await lines.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "end",
    [
        lambda told: told.convene(number=4),
        lambda told: told.convene(number=4, action="hold"),
        lambda told: told.court.adjourn(),
    ],
)
def test_it_ends_with_the_attempt_and_with_the_sidecar(told, end):
    async def scenario():
        lines = progress_lines(told.court, AT_ONCE)
        await next_report(lines)
        ended = asyncio.ensure_future(anext(lines))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        end(told)
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(ended, SOON)

    asyncio.run(scenario())


def test_other_spares_are_news_and_no_end(told):
    async def scenario():
        lines = progress_lines(told.court, AT_ONCE)
        await next_report(lines)
        told.convene(spares=1)
        assert (await next_report(lines))["attemptNumber"] == 3
        await lines.aclose()

    asyncio.run(scenario())


def test_news_before_it_is_waited_for_is_not_lost():
    async def scenario():
        news = News()
        count = news.count
        news.happened()
        await asyncio.wait_for(news.after(count, 3600.0), SOON)
        await news.after(news.count, 0.0)
        await news.after(news.count, -1.0)

    asyncio.run(scenario())


def test_over_a_real_connection(told):
    async def scenario():
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            server = make_server(make_app(told.court, TokenFile(told.folder / "token"), told.metrics, AT_ONCE))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/progress/stream"
            token = {"Authorization": "Bearer s3cret"}
            async with httpx.AsyncClient(trust_env=False, timeout=SOON) as client:
                assert (await client.get(url)).status_code == 401
                async with client.stream("GET", url, headers=token) as response:
                    assert response.status_code == 200
                    assert response.headers["content-type"] == "application/x-ndjson"
                    lines = response.aiter_lines()
                    assert (await next_report(lines))["attempt"] == "3-9f2c1a00"
                    told.say(2)
                    assert len((await next_report(lines))["workers"]) == 1
                    told.convene(number=4, action="hold")
                    assert [line async for line in lines] == []
                refused = await client.get(url, headers=token)
                assert (refused.status_code, refused.json()["detail"]) == (
                    404,
                    "this is not worker 0 of a running attempt",
                )
            server.should_exit = True
            await serving

    asyncio.run(scenario())
