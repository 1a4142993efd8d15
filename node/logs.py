"""The log: human on a terminal, JSON lines otherwise; keys that could carry a patient's identity never get out."""

import logging
import sys
from typing import Any, TextIO

import structlog

from node.settings import LogSettings

FORBIDDEN_KEYS = frozenset({"patient_name", "patient_id", "birth_date", "accession_number", "data_set", "dataset"})
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_NOISY = ("pynetdicom", "pydicom", "dbos", "highdicom", "alembic", "sqlalchemy", "grpc")


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up structlog for this process; libraries' own loggers speak from WARNING on, through the same form."""
    out = stream or sys.stderr
    human = settings.format == "console" or (settings.format == "auto" and out.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_forbidden,
    ]
    last: Any = structlog.dev.ConsoleRenderer() if human else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, last],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processor=last))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR if name == "pynetdicom" else logging.WARNING)


def _drop_forbidden(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    for key in FORBIDDEN_KEYS & event.keys():
        event[key] = "[removed]"
    return event
