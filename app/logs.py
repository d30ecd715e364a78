"""Structured logging: one line a request, JSON for machines or text for a terminal, everything on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor

LogFormat = Literal["json", "console"]


def configure_logs(*, level: str, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Sends our lines and those of libraries (uvicorn's too) to one stream, standard error by default, in one format."""
    stream = stream or sys.stderr
    least = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    rendering = _rendering(log_format, colours=stream.isatty())
    # Ours do not go through the standard library: that costs more than all else of a request that is refused.
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,  # so that a second call, as tests make, has its effect
    )
    drop_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[drop_meta, *rendering], foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(least)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # warns of every form that is none: the caller is told


def logger(name: str) -> FilteringBoundLogger:
    log: FilteringBoundLogger = structlog.get_logger(name)
    return log


def _rendering(log_format: LogFormat, *, colours: bool) -> list[Processor]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # Plain tracebacks: the pretty ones print local variables, so pictures and keys too, and take seconds over it.
    return [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]
