"""Names of what the Redis store keeps, and its scripts."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

FORMAT = 1
"""Version of keys and values: it grows when an older program could not read them."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of one space. Its name is the hash tag, so that a script always finds all of them on one shard."""

    prefix: str
    space: str

    def _key(self, *parts: str) -> str:
        return ":".join([self.prefix, f"{{{self.space}}}", *parts])

    @property
    def meta(self) -> str:
        """Hash: how far log and consolidation are."""
        return self._key("meta")

    @property
    def log(self) -> str:
        """Stream: one entry an observation, its id is `SEQ-0`."""
        return self._key("log")

    @property
    def jobs(self) -> str:
        """Hash: job → what it waits for."""
        return self._key("jobs")

    @property
    def requests(self) -> str:
        """Hash: idempotency key → the job and the hash of its request."""
        return self._key("requests")

    def staged(self, commit: str) -> str:
        """Hash: topic → document, of a consolidation that is about to be committed."""
        return self._key("staged", commit)

    def commits(self, generation: str) -> str:
        """Stream: one entry a consolidation, its id is `NUMBER-0`."""
        return self._key("commits", generation)

    def versions(self, generation: str) -> str:
        """Hash: topic → version."""
        return self._key("versions", generation)

    def documents(self, generation: str) -> str:
        """Hash: topic → document and profile of that version."""
        return self._key("documents", generation)

    def projection(self, generation: str) -> tuple[str, str, str]:
        """Commits, versions, documents: what a rebuild computes again."""
        return (self.commits(generation), self.versions(generation), self.documents(generation))


def spaces_key(prefix: str) -> str:
    """Set: names of all spaces."""
    return f"{prefix}:spaces"


def format_key(prefix: str) -> str:
    """The version of keys and values that is in use."""
    return f"{prefix}:format"


def script(name: str) -> str:
    """The text of a script."""
    return resources.files("sternpost_memory.store").joinpath("redis_lua", f"{name}.lua").read_text(encoding="utf-8")
