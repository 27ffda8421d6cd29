"""Structured logs: a line of JSON in the service's file, a readable line on the terminal."""

import json
import logging
import logging.handlers
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["logger", "set_up"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def logger(name: str) -> logging.Logger:
    """Give the logger of a module; its `extra=` (run, device, request) become fields of the line."""
    return logging.getLogger(name)


class _JsonLine(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _Readable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        extra = " ".join(f"{key}={value}" for key, value in vars(record).items() if key not in _STANDARD)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{clock} {record.levelname:7} {record.name.removeprefix('bec_bluesky.')}: {record.getMessage()}"
        text += f"  [{extra}]" if extra else ""
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up(service: str, *, level: str = "INFO", directory: Path | None = None, terminal: bool = True) -> None:
    """Send this process's logs to `directory/<service>.jsonl` (10 MB, 5 old ones kept) and to stderr."""
    handlers: list[logging.Handler] = []
    if terminal:
        stream = logging.StreamHandler(sys.stderr)
        stream.setFormatter(_Readable())
        handlers.append(stream)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{service}.jsonl"
        file = logging.handlers.RotatingFileHandler(path, maxBytes=10_000_000, backupCount=5, encoding="utf-8")
        file.setFormatter(_JsonLine(service))
        handlers.append(file)
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)
    for noisy in ("asyncio", "httpx", "httpcore", "matplotlib", "numcodecs", "caproto"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
