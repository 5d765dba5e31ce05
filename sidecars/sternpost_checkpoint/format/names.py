"""Names of the objects in the storage."""

from __future__ import annotations

import re

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.lineage import Generation

GENERATIONS = "generations/"
RUNS = "runs/"
LEDGER = "ledger/"
LATEST = "latest.json"
MANIFEST = "manifest.json"

MAX_STEP = 10**12 - 1
MAX_RUN = 10**6 - 1

_GENERATION = re.compile(r"^([0-9]{12})-r([0-9]{6})$")
_RUN = re.compile(r"^runs/([0-9]{6})\.json$")
_LEDGER = re.compile(r"^ledger/([0-9]{12})-r([0-9]{6})\.json$")
_PART = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")


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


def shard_name(rank: int) -> str:
    """The bytes of one rank, inside of the generation's folder."""
    return f"rank-{rank:05d}.shard"


def index_name(rank: int) -> str:
    """The table of one rank's shard."""
    return f"rank-{rank:05d}.json"


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
