"""What can go wrong with a store. Each error says what happened, where, and the way out."""

from __future__ import annotations


class StoreError(Exception):
    """The store could not do it; nothing that was acknowledged is lost."""


class StoreFull(StoreError):  # noqa: N818 - named after the state it reports, as its siblings are
    """No space left (or the store's own limit is reached); the write did not happen."""


class StoreBusy(StoreError):  # noqa: N818 - see StoreFull
    """Another process held the store for too long; the write did not happen."""


class StoreUnavailable(StoreError):  # noqa: N818 - see StoreFull
    """The store cannot be opened, read or written."""


class StoreCorrupted(StoreError):  # noqa: N818 - see StoreFull
    """The store's file is damaged, or is none of ours."""


class StoreTooNew(StoreError):  # noqa: N818 - see StoreFull
    """A newer version of this program wrote the store."""


class StoreConflict(StoreError):  # noqa: N818 - see StoreFull
    """A consolidation was computed from a state that is no longer the current one: plan again."""


class KeyReused(Exception):  # noqa: N818 - see StoreFull
    """An idempotency key came back with another request."""


class AuthorizationUnavailable(Exception):  # noqa: N818 - see StoreFull
    """Whether a caller may do something cannot be said now: this is no refusal."""


class SettingsError(Exception):
    """The service was started with settings that cannot work."""


class ClientError(Exception):
    """The service did not answer, or answered with a problem."""
