"""What a follower of a space lacks, read from Redis in bounded pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sternpost_memory.model import Observation
from sternpost_memory.store.redis_connection import RedisConnection
from sternpost_memory.store.redis_keys import Keys
from sternpost_memory.store.redis_rows import (
    Commit,
    Entry,
    commit_from,
    document_from,
    mark_of,
    number_of,
    observation_from,
)

LOG_CHUNK = 256
COMMIT_CHUNK = 32
DOCUMENT_CHUNK = 32

FIRST_GENERATION = "0"

Documents = Mapping[str, tuple[int, str, str] | None]
"""Topic → version, document and profile; None if the document is of a later version than was asked for."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a follower has come."""

    generation: str = FIRST_GENERATION
    last_seq: int = 0
    log_mark: str = ""
    """Mark of the observation `last_seq`."""
    commits: int = 0
    commit_mark: str = ""
    """Mark of the commit number `commits`."""
    consolidated_seq: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What follows a place."""

    continues: bool
    """Whether Redis still has what the follower has: if not, it has to begin anew."""
    generation: str
    stamp: str | None
    """Of the newest write; None if there was never any."""
    created_at: float = 0.0
    observations: Sequence[Observation] = ()
    commits: Sequence[Commit] = ()
    place: Place = field(default_factory=Place)
    """Where the follower is once it has taken all that in."""
    more_log: bool = False
    """Whether the log goes on after `observations`."""
    at_the_end: bool = False
    """Whether there is nothing after `place`."""


def look(connection: RedisConnection, keys: Keys, place: Place, *, commits_too: bool) -> Seen:
    """A piece of what follows `place`, seen in one moment. Commits are given once the log is there that they rest on.

    Raises:
        StoreError: Redis is away, or what it holds cannot be read.
    """
    meta, log, commits = connection.call(
        "look",
        [keys.meta, keys.log, keys.commits(place.generation)],
        # From the last one that is known: it tells whether this is still the same log.
        [place.last_seq, LOG_CHUNK + 1, place.commits, COMMIT_CHUNK + 1 if commits_too else 0],
    )
    log, commits = ([_entry(raw) for raw in entries] for entries in (log, commits))
    generation, stamp = _text(meta[0]) or FIRST_GENERATION, _text(meta[1])
    begins_log = _begins_with(log, place.last_seq, place.log_mark)
    begins_commits = not commits_too or _begins_with(commits, place.commits, place.commit_mark)
    if stamp is None or generation != place.generation or not (begins_log and begins_commits):
        return Seen(continues=False, generation=generation, stamp=stamp)
    return _seen(place, meta, _after(log, place.last_seq), _after(commits, place.commits))


def _seen(place: Place, meta: Sequence[bytes | None], log: Sequence[Entry], commits: Sequence[Entry]) -> Seen:
    _, stamp, created, last, commit_count = meta
    observations = [observation_from(entry) for entry in log]
    last_seq = observations[-1].seq if observations else place.last_seq
    usable = []
    for entry in commits:
        commit = commit_from(entry)
        if commit.last_seq > last_seq:
            break
        usable.append(commit)
    new = Place(
        generation=place.generation,
        last_seq=last_seq,
        log_mark=mark_of(log[-1]) if log else place.log_mark,
        commits=usable[-1].number if usable else place.commits,
        commit_mark=usable[-1].mark if usable else place.commit_mark,
        consolidated_seq=usable[-1].last_seq if usable else place.consolidated_seq,
    )
    more_log = last_seq < int(last or 0)
    return Seen(
        continues=True,
        generation=place.generation,
        stamp=_text(stamp),
        created_at=float(created or 0),
        observations=observations,
        commits=usable,
        place=new,
        more_log=more_log,
        at_the_end=not more_log and new.commits == int(commit_count or 0),
    )


def documents(connection: RedisConnection, keys: Keys, seen: Seen) -> Documents:
    """The documents that the commits in `seen` wrote, as far as they were not written again since.

    Raises:
        StoreError: Redis is away, or a document is damaged.
    """
    versions = {header.topic.id: header.topic.version for commit in seen.commits for header in commit.topics}
    wanted = list(versions.items())
    found: dict[str, tuple[int, str, str] | None] = {}
    where = [keys.versions(seen.generation), keys.documents(seen.generation)]
    for first in range(0, len(wanted), DOCUMENT_CHUNK):
        part = wanted[first : first + DOCUMENT_CHUNK]
        blobs = connection.call("documents", where, [item for pair in part for item in pair])
        for (topic, version), blob in zip(part, blobs, strict=True):
            found[topic] = (version, *document_from(blob)) if blob is not None else None
    return found


def _entry(raw: tuple[bytes, list[bytes]]) -> Entry:
    identity, fields = raw
    return identity, dict(zip(fields[::2], fields[1::2], strict=True))


def _begins_with(entries: Sequence[Entry], number: int, mark: str) -> bool:
    if number == 0:
        return True
    return bool(entries) and number_of(entries[0]) == number and mark_of(entries[0]) == mark


def _after(entries: Sequence[Entry], number: int) -> Sequence[Entry]:
    return entries[1:] if number and entries else entries


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
