"""Levels of loggers for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_level(level: int, *loggers: logging.Logger) -> Iterator[None]:
    """Let loggers pass records from a level on, and restore their own afterwards."""
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(level)
        yield
    finally:
        for logger, own in zip(loggers, before, strict=True):
            logger.setLevel(own)
