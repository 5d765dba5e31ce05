"""`sternpost-checkpoint`: the sidecar, and a look into a storage."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
import typer

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, NotFoundError
from sternpost_checkpoint.format.names import generation_label, parse_label
from sternpost_checkpoint.lineage import Generation, eligible, newest
from sternpost_checkpoint.store.uri import open_store

app = typer.Typer(
    help="Checkpoints of Sternpost: the sidecar that makes them, and commands that look into a storage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Storage = Annotated[
    str, typer.Argument(metavar="URI", help="The storage: file:///FOLDER, s3://BUCKET/PREFIX, gs://, az://")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Which = Annotated[
    str, typer.Option("--generation", "-g", help="`latest`, a step, or STEP-rRUN as `ls` prints it.", show_default=True)
]


def main() -> None:
    """Run the command line; a CheckpointError is one line and exit code 1."""
    try:
        app()
    except CheckpointError as error:
        sys.stderr.write(f"sternpost-checkpoint: {error}\n")
        sys.exit(1)


@app.command()
def sidecar() -> None:
    """Run beside the trainer: store what it saves, commit, and answer what can be restored. Configured by environment."""
    from sternpost_checkpoint.sidecar.config import read_config  # noqa: PLC0415 # only this command needs them
    from sternpost_checkpoint.sidecar.service import NICENESS, Service  # noqa: PLC0415

    _configure_log()
    config = read_config(os.environ)
    store = open_store(config.policy.storage)
    os.nice(NICENESS)
    service = Service(config, store)
    service.serve_metrics()
    service.run()


@app.command("ls")
def list_generations(storage: Storage, as_json: AsJson = False) -> None:
    """List the generations of a storage, and what is remembered of collected ones."""
    catalog = Catalog(open_store(storage))
    runs = catalog.runs()
    found = catalog.generations()
    latest = newest((files.generation for files in found if files.complete), runs)
    rows = [
        {
            "generation": generation_label(files.generation),
            "step": files.generation.step,
            "run": files.generation.run,
            "state": _state(files.complete, eligible(files.generation, runs)),
            "newest": files.generation == latest,
            "files": len(files.files),
            "bytes": sum(files.files.values()),
            "mib": sum(files.files.values()) / 2**20,
        }
        for files in found
    ]
    if as_json:
        ledger = [json.loads(entry.to_bytes()) for entry in catalog.ledger()]
        run_rows = [json.loads(document.to_bytes()) for document in catalog.run_documents()]
        _print_json({"uri": catalog.store.uri, "generations": rows, "ledger": ledger, "runs": run_rows})
        return
    typer.echo(f"{'GENERATION':<21}{'STATE':<12}{'FILES':>6}{'MIB':>10}")
    for row in rows:
        mark = " *" if row["newest"] else ""
        typer.echo(f"{row['generation']:<21}{row['state']:<12}{row['files']:>6}{row['mib']:>10.1f}{mark}")


@app.command()
def show(storage: Storage, generation: Which = "latest", as_json: AsJson = False) -> None:
    """Show one generation: where it came from, its size, the hash of its weights, its tensors."""
    catalog = Catalog(open_store(storage))
    manifest = catalog.manifest(_find(catalog, generation))
    if as_json:
        tensors = []
        for entry in manifest.ranks:
            index = catalog.index(manifest, entry)
            for stored in index.stored:
                spec = index.spec(stored.tensor)
                tensors.append({"rank": entry.rank, **spec.to_json(), **json.loads(stored.to_bytes())})
        _print_json({**json.loads(manifest.to_bytes()), "tensors": tensors})
        return
    saved = datetime.fromtimestamp(manifest.saved_at, tz=UTC).isoformat(timespec="seconds")
    for name, value in (
        ("generation", generation_label(manifest.generation)),
        ("attempt", manifest.attempt_id),
        ("saved", saved),
        ("ranks", manifest.world_size),
        ("raw", f"{manifest.raw_bytes} bytes"),
        ("stored", f"{manifest.stored_bytes} bytes ({manifest.raw_bytes / max(manifest.stored_bytes, 1):.2f}x)"),
        ("weights", f"sha256 {manifest.weights_hash}"),
    ):
        typer.echo(f"{name:<12}{value}")


@app.command()
def verify(
    storage: Storage,
    generation: Annotated[str, typer.Option("--generation", "-g", help="As for `show`, or `all`.")] = "all",
    as_json: AsJson = False,
) -> None:
    """Read every byte of the complete generations and check every hash; exit code 1 when one is damaged."""
    from sternpost_checkpoint.verify import verify_generation  # noqa: PLC0415 # loads the codecs

    catalog = Catalog(open_store(storage))
    if generation == "all":
        chosen = [files.generation for files in catalog.generations() if files.complete]
    else:
        chosen = [_find(catalog, generation)]
    results: list[dict[str, Any]] = []
    for item in chosen:
        problems = verify_generation(catalog, item)
        results.append({"generation": generation_label(item), "ok": not problems, "problems": problems})
        if not as_json:
            typer.echo(f"{generation_label(item)}  {'ok' if not problems else 'DAMAGED'}")
            for problem in problems:
                typer.echo(f"  {problem}")
    if as_json:
        _print_json({"uri": catalog.store.uri, "generations": results})
    if not all(result["ok"] for result in results):
        raise typer.Exit(1)


def _find(catalog: Catalog, which: str) -> Generation:
    complete = [files.generation for files in catalog.generations() if files.complete]
    if which == "latest":
        found = newest(complete, catalog.runs())
    elif which.isdecimal():
        found = max((generation for generation in complete if generation.step == int(which)), default=None)
    else:
        label = parse_label(which)
        found = label if label in complete else None
    if found is None:
        raise NotFoundError(f"{catalog.store.uri} has no complete generation {which!r}; `ls` shows what there is")
    return found


def _state(complete: bool, on_line: bool) -> str:  # two facts, one word
    if not on_line:
        return "abandoned"
    return "complete" if complete else "incomplete"


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _configure_log() -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
