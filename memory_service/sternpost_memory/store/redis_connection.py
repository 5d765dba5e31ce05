"""The connection to Redis: bounded retries and waits, errors that say the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

import redis
import structlog
from redis import exceptions
from redis.backoff import ExponentialWithJitterBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from sternpost_memory.errors import SettingsError, StoreError, StoreFull, StoreTooNew, StoreUnavailable
from sternpost_memory.store.redis_keys import FORMAT, format_key, script
from sternpost_memory.store.redis_rows import Entry

SCHEMES = frozenset({"redis", "rediss", "unix"})
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
"""For one answer of Redis; its slowest is a commit of a large consolidation."""
RETRIES = 2
AWAY_SECONDS = 0.5
"""After all retries failed, requests are refused at once for so long: threads do not pile up on a Redis that is away."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


class PasswordFile(CredentialProvider):
    """A password that is read for every new connection, so that it can be changed without a restart."""

    def __init__(self, path: Path, username: str | None = None) -> None:
        self._path = path
        self._username = username

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Username, if there is one, and password."""
        try:
            password = self._path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreUnavailable(
                f"the password of Redis in {self._path} cannot be read ({error}): check --redis-password-file"
            ) from error
        return (self._username, password) if self._username else (password,)


def redacted(url: str) -> str:
    """A URL without its password, for logs and messages."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}"))


class RedisConnection:
    """One Redis, used by many threads.

    Raises:
        SettingsError: the URL is none of Redis.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        password: str | None = None,
        password_file: Path | None = None,
    ) -> None:
        self.name = redacted(url)
        self.prefix = prefix
        self._away_until = 0.0
        self._inspected = False
        options: dict[str, Any] = {}
        if password_file is not None:
            options["credential_provider"] = PasswordFile(password_file, urlsplit(url).username)
        elif password:
            options["password"] = password
        retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), RETRIES)
        try:
            self._client = redis.Redis.from_url(
                url,
                retry=retry,
                socket_connect_timeout=CONNECT_SECONDS,
                socket_timeout=ANSWER_SECONDS,
                health_check_interval=30,
                client_name="sternpost-memory",
                **options,
            )
        except ValueError as error:
            raise SettingsError(
                f"--store {self.name} is no URL of Redis ({error}): write redis://HOST:PORT/DATABASE"
            ) from error
        self._scripts = {
            name: self._client.register_script(script(name))
            for name in ("append", "request", "commit", "documents", "look", "switch", "publish")
        }

    def use(self, work: Callable[[redis.Redis], T]) -> T:
        """What `work` does with the client. It may be done twice, when an answer is lost.

        Raises:
            StoreError: Redis is away or refuses.
        """
        if monotonic() < self._away_until:
            raise StoreUnavailable(f"{self.name} did not answer a moment ago: try again")
        if not self._inspected:
            self._inspect()
        with self._translated():
            return work(self._client)

    def call(self, name: str, keys: list[str], arguments: list[Any]) -> Any:
        """Run a script, which is one transaction. Raises as `use`."""
        return self.use(lambda client: self._scripts[name](keys=keys, args=arguments, client=client))

    def fields(self, key: str, *names: str) -> list[bytes | None]:
        """Fields of a hash; None where there is no such field. Raises as `use`."""
        return cast("list[bytes | None]", self.use(lambda client: client.hmget(key, list(names))))

    def entries(self, key: str, first: int, last: int) -> list[Entry]:
        """Entries of a stream, both ends included. Raises as `use`."""
        return cast("list[Entry]", self.use(lambda client: client.xrange(key, min=f"{first}-0", max=f"{last}-0")))

    def ping(self) -> None:
        """Raise `StoreError` unless Redis answers."""
        self.use(lambda client: client.ping())

    def close(self) -> None:
        """Let go of all connections."""
        self._client.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (exceptions.RedisError, OSError) as error:
            known = self._meaning(error)
            if known is None:
                raise
            raise known from error

    def _meaning(self, error: Exception) -> StoreError | None:
        known: StoreError | None = StoreUnavailable(
            f"{self.name} does not answer ({error}): check that Redis runs there and can be reached"
        )
        match error:
            case exceptions.AuthenticationError() | exceptions.NoPermissionError() | exceptions.AuthorizationError():
                known = StoreUnavailable(
                    f"{self.name} refuses this service's password or user ({error}): give the right one with "
                    "STERNPOST_MEMORY_REDIS_PASSWORD or --redis-password-file"
                )
            case exceptions.BusyLoadingError():
                known = StoreUnavailable(f"{self.name} is still reading its data: try again")
            case exceptions.ConnectionError() | exceptions.TimeoutError() | OSError():
                self._away_until = monotonic() + AWAY_SECONDS
                # Another one may answer next.
                self._inspected = False
            case exceptions.OutOfMemoryError():
                known = StoreFull(f"{self.name} has no memory left: raise its maxmemory, or give it a larger machine")
            case exceptions.ReadOnlyError():
                known = StoreUnavailable(
                    f"{self.name} is a replica, which takes no writes: name the primary in --store"
                )
            case exceptions.ResponseError() if str(error).startswith(("MISCONF", "NOREPLICAS", "BUSY", "NOAUTH")):
                known = StoreUnavailable(f"{self.name} refuses to work now: {error}")
            case _:
                # A mistake in what was sent stays what it is.
                known = None
        return known

    def _inspect(self) -> None:
        """Once Redis answers, look whose data this is, and whether it is safe there."""
        with self._translated():
            known = self._client.get(format_key(self.prefix))
            if known is None:
                self._client.set(format_key(self.prefix), FORMAT, nx=True)
            elif int(known) > FORMAT:
                raise StoreTooNew(
                    f"{self.name} has format {int(known)}, written by a newer Sternpost; this one knows formats up to "
                    f"{FORMAT}: install the newer Sternpost again, or give another --store"
                )
            for problem in durability_problems(self._client):
                log.warning("Redis may lose acknowledged observations", store=self.name, why=problem)
            self._inspected = True


def durability_problems(client: redis.Redis) -> list[str]:
    """Why this Redis would lose what it acknowledged, as sentences with the way out; empty if it would not."""
    problems: list[str] = []
    information: dict[str, Any] = client.info()
    fsync = _setting(client, "appendfsync")
    if not information.get("aof_enabled"):
        problems.append("its append-only file is off: start it with `appendonly yes` and `appendfsync always`")
    elif fsync is None:
        problems.append("it does not tell its `appendfsync`: make sure that it is `always`")
    elif fsync != "always":
        problems.append(
            f"`appendfsync` is `{fsync}`: a power cut loses what was written since the last fsync; set it to `always`"
        )
    policy = information.get("maxmemory_policy", "noeviction")
    if information.get("maxmemory") and policy != "noeviction":
        problems.append(f"`maxmemory-policy` is `{policy}`: it throws data away when memory is short; set `noeviction`")
    if information.get("role") not in {"master", None}:
        problems.append("it is a replica: name the primary in --store")
    return problems


def _setting(client: redis.Redis, name: str) -> str | None:
    try:
        found = cast("dict[str, str]", client.config_get(name))
    except exceptions.ResponseError:
        # Services that are managed by others often have no CONFIG.
        return None
    return found.get(name)
