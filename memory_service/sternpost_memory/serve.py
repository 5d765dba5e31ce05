"""Start the service, run it until it is told to stop, leave everything in order."""

from __future__ import annotations

import errno
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvicorn

from sternpost_memory.consolidation.deterministic import DeterministicEngine
from sternpost_memory.consolidation.policy import Policy
from sternpost_memory.consolidation.worker import Worker
from sternpost_memory.errors import SettingsError
from sternpost_memory.http.app import create_app
from sternpost_memory.http.auth import Authorizer, FirstOf, OpenAuthorizer, is_loopback, read_tokens
from sternpost_memory.http.service import Service
from sternpost_memory.metrics import Metrics
from sternpost_memory.store.base import Store
from sternpost_memory.store.location import StoreLocation

GRACE_SECONDS = 5
"""For requests that are being answered when the service is told to stop."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run the service."""

    host: str
    port: int
    """0 for any free one, which the log names."""
    store: StoreLocation
    policy: Policy
    token_file: Path | None = None
    no_auth: bool = False
    token_review: bool = False
    audience: str = ""
    """Of service account tokens."""
    grants: Path | None = None


def authorizer_for(settings: Settings, metrics: Metrics | None = None) -> Authorizer:
    """Who may do what.

    Raises:
        SettingsError: neither tokens nor a loopback address; or both tokens and none.
    """
    if settings.no_auth:
        return _open_to_all(settings)
    authorizers: list[Authorizer] = []
    if settings.token_file is not None:
        authorizers.append(read_tokens(settings.token_file))
    if settings.token_review:
        authorizers.append(_token_review(settings, metrics))
    elif settings.grants is not None:
        raise SettingsError("--grants says what service accounts may do: give --token-review, too, or leave it out")
    if not authorizers:
        raise SettingsError(
            'nobody could use the service: give --token-file FILE, a JSON object such as {"TOKEN": ["SPACE"]}, or, in a '
            "cluster, --token-review and --grants FILE, or, on this machine alone, --no-auth"
        )
    return authorizers[0] if len(authorizers) == 1 else FirstOf(authorizers)


def _token_review(settings: Settings, metrics: Metrics | None) -> Authorizer:
    if settings.grants is None:
        raise SettingsError(
            'no service account may do anything: give --grants FILE, a JSON object such as {"*": ["{namespace}"]}'
        )
    if not settings.audience:
        raise SettingsError(
            "--token-review needs --audience: without one, a token that was made for another service would do here"
        )
    # Imported here: outside a cluster nobody needs it, and it takes long.
    from sternpost_memory.http.auth_token_review import TokenReviewAuthorizer  # noqa: PLC0415
    from sternpost_memory.http.grants import read_grants  # noqa: PLC0415
    from sternpost_memory.http.token_reviews import TokenReviews  # noqa: PLC0415

    return TokenReviewAuthorizer(
        TokenReviews(settings.audience),
        read_grants(settings.grants),
        counter=metrics.token_reviews if metrics is not None else None,
    )


def _open_to_all(settings: Settings) -> Authorizer:
    if settings.token_file is not None:
        raise SettingsError("--token-file and --no-auth contradict each other: give one of them")
    if settings.token_review or settings.grants is not None:
        raise SettingsError("--token-review and --no-auth contradict each other: give one of them")
    if not is_loopback(settings.host):
        raise SettingsError(
            f"--no-auth would let anyone who reaches {settings.host} read and write all memory: it is for --host "
            "127.0.0.1 only; give --token-file FILE or --token-review instead"
        )
    return OpenAuthorizer()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        SettingsError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise SettingsError(f"--host {host} cannot be resolved ({error.strerror}): give an address") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"port {port} of {host} is taken: end what listens there (`ss -ltnp` names it), or give another --port"
            ) from error
        raise SettingsError(f"cannot listen on port {port} of {host}: {error.strerror}") from error
    return listener


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        SettingsError: it cannot start like this.
        StoreError: the store cannot be used.
    """
    metrics = Metrics()
    authorizer = authorizer_for(settings, metrics)
    # Tried before the store is opened: a second service by mistake touches nothing.
    listener = listen(settings.host, settings.port)
    try:
        store = settings.store.open()
        try:
            _run(settings, authorizer, metrics, listener, store)
        finally:
            store.close()
    finally:
        listener.close()


def _run(settings: Settings, authorizer: Authorizer, metrics: Metrics, listener: socket.socket, store: Store) -> None:
    worker = Worker(store, DeterministicEngine(), policy=settings.policy, metrics=metrics)
    app = create_app(Service(store=store, worker=worker, metrics=metrics), authorizer)
    server = uvicorn.Server(
        uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_SECONDS,
            server_header=False,
        )
    )  # fmt: skip

    def stop(_number: int, _frame: object) -> None:
        server.should_exit = True

    # uvicorn catches these once it runs, ends, and then sends them once more to whoever had them before: that is us.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    worker.start()
    try:
        host, port = listener.getsockname()[:2]
        log.info("listening", host=host, port=port, store=settings.store.where, authentication=authorizer.needs_token)
        server.run(sockets=[listener])
    finally:
        worker.stop()
        log.info("stopped")
