"""The agent's log: one JSON object a line on stderr, for journald or a file.

A traceback names places only: structlog would print every frame's variables too, and some of them are keys.
"""

import logging
import os
import sys

import structlog
from structlog.tracebacks import ExceptionDictTransformer

_TRACEBACKS = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


def log_to_stderr() -> None:
    """Set logging up once per process; ``FLAGSHIP_LOG`` names the least level (info)."""
    level = logging.getLevelNamesMapping().get(os.environ.get("FLAGSHIP_LOG", "info").upper(), logging.INFO)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _TRACEBACKS,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
