"""`sidecar`: run beside the trainer."""

from __future__ import annotations

import logging
import os
import sys

import structlog

from sternpost_checkpoint.store.uri import open_store


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
