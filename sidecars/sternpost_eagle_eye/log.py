"""Structured logs: one JSON object a line on standard error."""

from __future__ import annotations

import sys

import structlog


def configure_logs() -> None:
    """To be called once by a process's entry point."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
