"""Names of the objects in the storage."""

from __future__ import annotations

import re
from typing import Final

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.lineage import Generation

GENERATIONS = "generations/"
RUNS = "runs/"
LEDGER = "ledger/"
LATEST = "latest.json"
MANIFEST = "manifest.json"

FORMAT: Final = 2
"""Version of everything that FORMAT.md describes; another one is refused."""

MAX_STEP = 10**12 - 1
MAX_RUN = 10**6 - 1

_GENERATION = re.compile(r"^([0-9]{12})-r([0-9]{6})\Z")
_RUN = re.compile(r"^runs/([0-9]{6})\.json\Z")
_LEDGER = re.compile(r"^ledger/([0-9]{12})-r([0-9]{6})\.json\Z")
_TOKEN = re.compile(r"^[0-9a-f]{16}\Z")
_PART = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")


def check_name(name: str) -> str:
    """Return `name`; raises FormatError unless it is a plain relative path without tricks."""
    if len(name) > 1024 or not all(_PART.match(part) for part in name.split("/")):
        raise FormatError(f"{name!r} is not a name of the checkpoint format")
    return name


def generation_label(generation: Generation) -> str:
    """STEP-rRUN, in fixed width so that names sort."""
    if not 0 <= generation.step <= MAX_STEP or not 0 <= generation.run <= MAX_RUN:
        raise FormatError(f"step {generation.step} or run {generation.run} is out of range")
    return f"{generation.step:012d}-r{generation.run:06d}"


def parse_label(label: str) -> Generation | None:
    """The generation that a folder's name stands for; None for any other name."""
    match = _GENERATION.match(label)
    return Generation(int(match.group(1)), int(match.group(2))) if match else None


def generation_folder(generation: Generation) -> str:
    """The folder of a generation, with a slash at its end."""
    return f"{GENERATIONS}{generation_label(generation)}/"


def rank_prefix(rank: int) -> str:
    """What the names of a rank's files in the generation's folder begin with; a dash or a dot follows."""
    return f"rank-{rank:05d}"


def shard_name(rank: int, token: str) -> str:
    """The bytes of one rank, inside of the generation's folder. `token`: 16 hex digits that no other writer has drawn."""
    if not _TOKEN.match(token):
        raise FormatError(f"{token!r} is not 16 hex digits")
    return f"{rank_prefix(rank)}-{token}.shard"


def is_shard_name(name: str, rank: int) -> bool:
    """Whether `name` is one that a shard of this rank can have."""
    prefix, suffix = f"{rank_prefix(rank)}-", ".shard"
    return name.startswith(prefix) and name.endswith(suffix) and bool(_TOKEN.match(name[len(prefix) : -len(suffix)]))


def index_name(rank: int) -> str:
    """The table of one rank's shard, which it names. Put if absent, never changed: it decides which shard counts."""
    return f"{rank_prefix(rank)}.json"


def manifest_path(generation: Generation) -> str:
    """Its presence makes the generation complete."""
    return generation_folder(generation) + MANIFEST


def run_path(number: int) -> str:
    """The registration of a run."""
    if not 0 <= number <= MAX_RUN:
        raise FormatError(f"run {number} is out of range")
    return f"{RUNS}{number:06d}.json"


def parse_run_path(name: str) -> int | None:
    """The number of the run that `name` registers."""
    match = _RUN.match(name)
    return int(match.group(1)) if match else None


def ledger_path(generation: Generation) -> str:
    """What remains of a generation after its collection."""
    return f"{LEDGER}{generation_label(generation)}.json"


def parse_ledger_path(name: str) -> Generation | None:
    """The generation that a ledger entry is about."""
    match = _LEDGER.match(name)
    return Generation(int(match.group(1)), int(match.group(2))) if match else None
