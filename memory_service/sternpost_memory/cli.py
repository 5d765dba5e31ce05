"""`sternpost-memory`: run the service, and ask it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import structlog
import typer

from sternpost_memory.errors import ClientError, SettingsError, StoreError

if TYPE_CHECKING:
    from sternpost_memory.client import Client
    from sternpost_memory.store.location import StoreLocation

app = typer.Typer(
    name="sternpost-memory",
    help="Memory for training jobs: observations in, topic documents out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Url = Annotated[str, typer.Option(envvar="STERNPOST_MEMORY_URL", help="Where the service is.")]
SpaceOption = Annotated[str, typer.Option(envvar="STERNPOST_MEMORY_SPACE", help="Which memory.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(envvar="STERNPOST_MEMORY_TOKEN_FILE", help="File that holds your bearer token and nothing else."),
]
StoreOption = Annotated[
    str,
    typer.Option(
        envvar="STERNPOST_MEMORY_STORE",
        metavar="PATH|URL",
        help="An SQLite file (PATH or sqlite:PATH), or a Redis: redis://HOST:PORT/DATABASE, rediss:// with TLS.",
    ),
]
RedisPasswordFile = Annotated[
    Path | None,
    typer.Option(
        envvar="STERNPOST_MEMORY_REDIS_PASSWORD_FILE",
        help="File that holds the password of Redis; or set STERNPOST_MEMORY_REDIS_PASSWORD.",
    ),
]
Index = Annotated[
    Path | None,
    typer.Option(envvar="STERNPOST_MEMORY_INDEX", help="Folder for the index that is kept beside a Redis."),
]
DEFAULT_URL = "http://127.0.0.1:8765"
DEFAULT_SPACE = "default"


@app.command()
def serve(
    *,
    store: StoreOption,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8765,
    token_file: Annotated[
        Path | None, typer.Option(help='JSON file {"TOKEN": ["SPACE", …]}; ["*"] is all spaces.')
    ] = None,
    token_review: Annotated[
        bool, typer.Option("--token-review", help="Take service account tokens, checked by the Kubernetes API.")
    ] = False,
    audience: Annotated[str, typer.Option(help="Audience that such a token must have.")] = "sternpost-memory",
    grants: Annotated[
        Path | None,
        typer.Option(help='JSON file {"system:serviceaccount:NS:NAME": ["SPACE", …], "*": ["{namespace}"]}.'),
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="No tokens; on a loopback address only.")] = False,
    store_limit: Annotated[
        int | None, typer.Option(min=1024 * 1024, help="Bytes that the store may have at most.")
    ] = None,
    redis_password_file: RedisPasswordFile = None,
    index: Index = None,
    buffer_count: Annotated[int, typer.Option(min=1, help="Observations that start a consolidation.")] = 64,
    buffer_bytes: Annotated[int, typer.Option(min=1, help="Bytes of text that start a consolidation.")] = 65536,
    buffer_age: Annotated[float, typer.Option(min=0, help="Seconds after which one starts anyway.")] = 2.0,
) -> None:
    """Run the service until SIGTERM or Ctrl-C."""
    # Imported here: the other commands start in half the time without it.
    from sternpost_memory.consolidation.policy import Policy  # noqa: PLC0415
    from sternpost_memory.serve import Settings  # noqa: PLC0415
    from sternpost_memory.serve import serve as run_service  # noqa: PLC0415

    _log_to_stderr()
    _or_exit(
        run_service,
        Settings(
            host=host,
            port=port,
            store=_location(store, redis_password_file, index, store_limit),
            token_file=token_file,
            no_auth=no_auth,
            token_review=token_review,
            audience=audience,
            grants=grants,
            policy=Policy(count=buffer_count, size=buffer_bytes, age=buffer_age),
        ),
    )


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="A few words.")],
    url: Url = DEFAULT_URL,
    space: SpaceOption = DEFAULT_SPACE,
    token_file: TokenFile = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many hits at most.")] = 10,
) -> None:
    """Find topics, facts and observations."""
    from sternpost_memory.consolidation.documents import origin  # noqa: PLC0415 - see serve

    with _client(url, space, token_file) as client:
        hits = _or_exit(client.search, query, limit)
    for hit in hits:
        seq = hit["observations"][0] if hit["observations"] else 0
        topic = hit["topic"] or "(not in a topic yet)"
        state = ", superseded" if hit["superseded"] else ""
        typer.echo(
            f"{hit['score']:8.3f}  {topic}  {hit['kind']}{state}  {origin(seq, hit['occurredAt'], hit['source'])}"
        )
        typer.echo("".join(f"  > {line}\n" for line in hit["text"].splitlines()))


@app.command()
def show(
    topic: Annotated[str, typer.Argument(help="Such as node/node-3; leave it out to list all.")] = "",
    url: Url = DEFAULT_URL,
    space: SpaceOption = DEFAULT_SPACE,
    token_file: TokenFile = None,
    history: Annotated[bool, typer.Option("--history", help="Its versions instead of its text.")] = False,
) -> None:
    """Print a topic document, its history, or the list of topics."""
    with _client(url, space, token_file) as client:
        if not topic:
            for header in _or_exit(client.topics):
                typer.echo(f"{header['id']}  version {header['version']}  {header['summary']}")
        elif history:
            for version in _or_exit(client.history, topic):
                typer.echo(f"{version['version']}  {version['summary']}  observations {version['observations']}")
        else:
            typer.echo(_or_exit(client.document, topic), nl=False)


@app.command()
def rebuild(store: StoreOption, redis_password_file: RedisPasswordFile = None, index: Index = None) -> None:
    """Compute all topics, facts and search indexes again from the log of observations."""
    from sternpost_memory.consolidation.rebuild import rebuild_all  # noqa: PLC0415 - see serve

    _log_to_stderr()
    for space in _or_exit(rebuild_all, _location(store, redis_password_file, index)):
        typer.echo(f"rebuilt {space}")


def main() -> None:
    """Entry point; exit code 2 when it cannot work like this."""
    app()


def _location(
    store: str, redis_password_file: Path | None, index: Path | None, max_bytes: int | None = None
) -> StoreLocation:
    from sternpost_memory.store.location import StoreLocation  # noqa: PLC0415 - see serve

    return StoreLocation(
        where=store,
        max_bytes=max_bytes,
        # Not an option: everybody on a machine can read the arguments of its processes.
        redis_password=os.environ.get("STERNPOST_MEMORY_REDIS_PASSWORD"),
        redis_password_file=redis_password_file,
        index=index,
    )


def _client(url: str, space: str, token_file: Path | None) -> Client:
    from sternpost_memory.client import Client  # noqa: PLC0415 - see serve

    return _or_exit(Client, url, space, token_file)


P = ParamSpec("P")
T = TypeVar("T")


def _or_exit(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    try:
        return function(*arguments, **named)
    except (SettingsError, StoreError, ClientError) as error:
        typer.echo(f"sternpost-memory: {error}", err=True)
        raise typer.Exit(2) from error


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # Whatever standard error is when something is logged.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
