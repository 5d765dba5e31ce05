"""A consolidation into Redis: its documents are laid ready in pieces, then one script puts all of it in place."""

from __future__ import annotations

import uuid

import redis

from sternpost_memory.consolidation.engine import Change
from sternpost_memory.errors import StoreConflict
from sternpost_memory.limits import MIB
from sternpost_memory.store.redis_connection import RedisConnection
from sternpost_memory.store.redis_follow import FIRST_GENERATION
from sternpost_memory.store.redis_keys import Keys
from sternpost_memory.store.redis_rows import commit_entry, document_blob, mark

STAGED_SECONDS = 600
"""Documents whose consolidation was never committed, because its process died, go away after so long."""
PIECE_BYTES = MIB


def commit(connection: RedisConnection, keys: Keys, change: Change, now: float) -> None:
    """See `Store.commit`. It may be done twice when an answer is lost: the second time changes nothing."""
    identity = uuid.uuid4().hex
    (found,) = connection.fields(keys.meta, "generation")
    generation = found.decode() if found is not None else FIRST_GENERATION
    staged = keys.staged(identity)
    put_documents(connection, staged, change, seconds=STAGED_SECONDS)
    versions = [
        argument for item in change.topics for argument in (item.topic.id, item.base_version, item.topic.version)
    ]
    answer = connection.call(
        "commit",
        [keys.meta, keys.log, *keys.projection(generation), staged],
        [identity, generation, change.base_seq, change.last_seq, commit_entry(change, now), mark(identity), *versions],
    )
    match answer[0]:
        case b"done" | b"again":
            return
        case b"base":
            why = (
                f"the change was computed for what follows observation {change.base_seq}, but {int(answer[1])} are "
                "consolidated by now"
            )
        case b"topic":
            why = f"topic {answer[1].decode()} has another version by now"
        case b"generation":
            why = "the space was rebuilt meanwhile"
        case _:
            why = "what was laid ready is gone"
    connection.use(lambda client: client.unlink(staged))
    raise StoreConflict(f"{why}: plan again")


def put_documents(connection: RedisConnection, key: str, change: Change, *, seconds: int) -> None:
    """Write the documents of a change to a hash that goes away by itself after `seconds`, a piece at a time."""
    piece: dict[str, bytes] = {}
    size = 0
    for item in change.topics:
        blob = document_blob(item.topic)
        piece[item.topic.id] = blob
        size += len(blob)
        if size >= PIECE_BYTES:
            _put(connection, key, piece, seconds)
            piece, size = {}, 0
    if piece:
        _put(connection, key, piece, seconds)


def _put(connection: RedisConnection, key: str, piece: dict[str, bytes], seconds: int) -> None:
    def put(client: redis.Redis) -> None:
        pipeline = client.pipeline(transaction=True)
        pipeline.hset(key, items=[part for pair in piece.items() for part in pair])
        pipeline.expire(key, seconds)
        pipeline.execute()

    connection.use(put)
