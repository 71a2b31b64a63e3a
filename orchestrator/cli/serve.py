"""``flagship serve``: run the orchestrator until it is told to stop."""

import asyncio
import logging
import os
import sys

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from orchestrator.cli.output import HERE, HomeOption
from orchestrator.config import Home

# Places only: structlog would print every frame's variables too, and some of them are keys.
_TRACEBACKS = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


def serve(home: HomeOption = HERE) -> None:
    """Run the orchestrator: API, engine, delivery, ingest and, if it is managed, the broker."""
    from orchestrator.service import serve as run

    log_to_stderr()
    asyncio.run(run(Home(home)))


def log_to_stderr() -> None:
    """One JSON object a line; a person at a terminal gets columns. ``FLAGSHIP_LOG`` names the least level (info)."""
    level = logging.getLevelNamesMapping().get(os.environ.get("FLAGSHIP_LOG", "info").upper(), logging.INFO)
    person = sys.stderr.isatty()
    renderer = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if person
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if person else [_TRACEBACKS]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
