"""`bench`: what this machine and this storage can do."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import typer

from sternpost_checkpoint.commands.common import AsJson, parse_size, print_json
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.store.base import Store
from sternpost_checkpoint.store.uri import open_store

ROUNDS = 3
SMALL_ROUNDS = 9


def bench(
    storage: Annotated[str, typer.Option("--storage", help="Also write to and read from this storage.")] = "",
    size: Annotated[str, typer.Option("--size", help="Of each measurement.")] = "64M",
    as_json: AsJson = False,
) -> None:
    """Measure copying, hashing, every codec on one thread, and a storage; medians, in MB/s and as a ratio."""
    from sternpost_checkpoint.transfer.measure import codec_rows, memory_rows  # noqa: PLC0415 # loads the codecs

    total = parse_size(size)
    result: dict[str, Any] = {
        "bytes": total,
        "memory": memory_rows(total, ROUNDS),
        "codecs": codec_rows(total, ROUNDS),
        "storage": _storage_rows(open_store(storage), total) if storage else [],
    }
    if as_json:
        print_json(result)
        return
    for row in result["memory"]:
        typer.echo(f"{row['what']:<24}{row['mbPerSecond']:>10.0f} MB/s")
    for row in result["codecs"]:
        if row["encodeMbPerSecond"] is None:
            typer.echo(f"{row['codec']:<14}{row['data']:<22}{row['note']}")
            continue
        typer.echo(
            f"{row['codec']:<14}{row['data']:<22}{row['ratio']:>7.2f}x{row['encodeMbPerSecond']:>8.0f} MB/s in"
            f"{row['decodeMbPerSecond']:>8.0f} MB/s out"
        )
    for row in result["storage"]:
        value = f"{row['mbPerSecond']:.0f} MB/s" if row["mbPerSecond"] else f"{row['milliseconds']:.1f} ms"
        typer.echo(f"{row['what']:<24}{value:>14}")


def _storage_rows(store: Store, total: int) -> list[dict[str, Any]]:
    """Durable writes, reads, and the round trip of a conditional write. Leaves nothing behind."""
    prefix = f"bench-{uuid.uuid4().hex}"
    piece = uuid.uuid4().bytes * (2**20 // 16)
    pieces = max(total // len(piece), 1)
    target = memoryview(bytearray(pieces * len(piece)))
    try:
        rows = [
            _row("write, durable", len(target), lambda: store.put(f"{prefix}/large", [piece] * pieces), ROUNDS),
            _row("read", len(target), lambda: store.read_into(f"{prefix}/large", 0, target), ROUNDS),
            _row(
                "create if absent", 0, lambda: store.put_if_absent(f"{prefix}/{uuid.uuid4().hex}", b"x"), SMALL_ROUNDS
            ),
        ]
    finally:
        _clean_up(store, prefix)
    return rows


def _row(what: str, size: int, do: Callable[[], Any], rounds: int) -> dict[str, Any]:
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    return {"what": what, "mbPerSecond": size / median / 1e6 if size else None, "milliseconds": median * 1e3}


def _clean_up(store: Store, prefix: str) -> None:
    try:
        for entry in store.list(f"{prefix}/"):
            store.delete(entry.name)
    except CheckpointError as error:
        typer.echo(f"{prefix}/ stays in {store.uri}: {error}", err=True)
