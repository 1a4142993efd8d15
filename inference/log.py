"""The service's log: human on a terminal, JSON lines otherwise. Requests are named by their random id, never shown."""

import sys
from typing import Any

import structlog


def configure_log() -> None:
    """Write structlog events to standard error."""
    last: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
