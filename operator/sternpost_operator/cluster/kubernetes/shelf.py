"""Entries of one kind, the newest known version of each. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from typing import Generic, TypeVar

from sternpost_operator.cluster.kubernetes.entries import Entry

MAX_GONE = 20_000
"""Uids of removed objects that are remembered, so that a late answer does not bring one back."""

E = TypeVar("E", bound=Entry)
Group = tuple[str, str]


class Shelf(Generic[E]):
    """Filled by watches and by the answers to the operator's own requests, in whatever order they come.

    `group` gives what entries are also looked up by: a namespace and a job, say.
    """

    def __init__(self, group: Callable[[E], Group] | None = None) -> None:
        self._entries: dict[tuple[str, str], E] = {}
        self._group = group
        self._groups: dict[Group, dict[tuple[str, str], E]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self.revision = 0
        """Changes with each change."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        return iter(list(self._entries.values()))

    def get(self, namespace: str, name: str) -> E | None:
        """The entry of that name, if there is one."""
        return self._entries.get((namespace, name))

    def of(self, group: Group) -> list[E]:
        """All entries of a group."""
        return list(self._groups.get(group, {}).values())

    def put(self, entry: E) -> bool:
        """Keep it, unless it is older than what is known; whether it was kept."""
        if entry.uid in self._gone:
            return False
        known = self._entries.get(entry.key)
        if known is not None and known.version >= entry.version:
            return False
        self._remove(known)
        if known is not None and known.uid != entry.uid:
            self._remember(known.uid)
        self._entries[entry.key] = entry
        if self._group is not None:
            self._groups.setdefault(self._group(entry), {})[entry.key] = entry
        self.revision += 1
        return True

    def drop(self, namespace: str, name: str, uid: str) -> E | None:
        """The object with this uid is gone; what was known of it, if it was known."""
        self._remember(uid)
        known = self._entries.get((namespace, name))
        if known is None or known.uid != uid:
            return None
        self._remove(known)
        self.revision += 1
        return known

    def keep_only(self, namespace: str | None, uids: Collection[str], version: int) -> list[E]:
        """A complete list, as of `version`, holds these uids only: what else was known by then is gone, and returned."""
        alive = set(uids)
        gone = [
            entry
            for entry in self
            if entry.uid not in alive and entry.version <= version and namespace in (None, entry.namespace)
        ]
        for entry in gone:
            self.drop(entry.namespace, entry.name, entry.uid)
        return gone

    def _remove(self, entry: E | None) -> None:
        if entry is None:
            return
        self._entries.pop(entry.key, None)
        if self._group is not None:
            members = self._groups.get(self._group(entry), {})
            members.pop(entry.key, None)
            if not members:
                self._groups.pop(self._group(entry), None)

    def _remember(self, uid: str) -> None:
        self._gone[uid] = None
        if len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)
