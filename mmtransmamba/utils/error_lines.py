"""One-line descriptions of exceptions.

This package's own errors are written for the user, so their messages are complete.
Those of other packages often are not: for these, the line also gives the type of the
exception and its place in the code. If a config entry was being built, the line names
it, and any argument that does not have the type that the class expects.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

_PACKAGE = Path(__file__).resolve().parents[1]
# Types that this package raises for mistakes of the user. Other types are bugs.
_CLEAR = (ValueError, OSError, ImportError, NotImplementedError)
# Messages of these types are complete, whoever raises them.
_SENTENCES = re.compile(r'is not in the \S+ registry')
_BUILD = 'mmengine/registry/build_functions.py'
_SIMPLE = (int, float, bool, str, type(None))
_WORKER = re.compile(r'Caught \w+ in DataLoader worker process \d+\.')
_LAST_ERROR = re.compile(r'^([\w.]+): ', re.MULTILINE)
_LAST_FILE = re.compile(r'^ +File "(.+?)", line (\d+), in .*\n +(.*)', re.MULTILINE)


def describe(error: BaseException) -> tuple[str, bool]:
    """One line about an exception, and whether it tells the user what to fix.

    Args:
        error: A raised exception, so that its place is known.
    """
    name, message = type(error).__name__, _message(error)
    file, number, code = _place(error)
    if _WORKER.match(message):
        # The message is the worker's whole traceback; its last lines matter.
        found = list(_LAST_ERROR.finditer(message))
        places = list(_LAST_FILE.finditer(message))
        if found and places:
            name, code = found[-1][1].rpartition('.')[2], places[-1][3]
            file, number = places[-1][1], int(places[-1][2])
            message = message[found[-1].end() :]
    line = ' '.join(message.split())
    if isinstance(error, _CLEAR) and line and _is_ours(file):
        return line, True
    if isinstance(error, OSError) and error.filename is not None:
        return f'{error.filename}: {error.strerror or name}', True
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition('.')[0]
        return f'the Python package "{package}" is not installed', True
    if _SENTENCES.search(line):
        return line, True
    built = _built(error)
    if built is not None:
        cls, arguments = built
        wrong = _wrong_types(cls, arguments)
        if wrong:
            return f'{cls.__name__}: {"; ".join(wrong)}', True
        if isinstance(error, TypeError) and _short(file) == _BUILD:
            return line, True  # an unknown or a missing argument of the class
    if not line:
        # A bare assertion: its code is the only message.
        line = f'"{code}" does not hold' if code.startswith('assert ') else code
        if built is not None and code.startswith('assert '):
            return f'{_shown(*built)}: {code.removeprefix("assert ")} is required', True
    if built is not None:
        line += f', building {_shown(*built)}'
    return f'{name}: {line} [{_short(file)}, line {number}]', False


def log_traceback(error: BaseException) -> str | None:
    """Write the traceback to the log file of the current run.

    Returns:
        The file; None if no run has started one.
    """
    if 'mmengine.logging' not in sys.modules:
        return None
    from mmengine.logging import MMLogger

    files = [
        handler
        for handler in MMLogger.get_current_instance().handlers
        if isinstance(handler, logging.FileHandler)
    ]
    text = ''.join(traceback.format_exception(error))
    for handler in files:
        record = logging.LogRecord(
            'mmengine', logging.ERROR, __file__, 0, text, None, None
        )
        handler.handle(record)
    return files[0].baseFilename if files else None


def _message(error: BaseException) -> str:
    # For a KeyError, str() gives the representation of the missing key.
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        found = error.args[0]
        return found if ' ' in found else repr(found)
    return str(error)


def _place(error: BaseException) -> tuple[str, int, str]:
    """File, line and code where an exception was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return '', 0, ''
    return frames[-1].filename, frames[-1].lineno or 0, frames[-1].line or ''


def _built(error: BaseException) -> tuple[Any, dict[str, Any]] | None:
    """The class, and its arguments, that was being built from a config."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code, values = frame.f_code, frame.f_locals
        if code.co_name == 'build_from_cfg' and 'obj_cls' in values:
            cls = values['obj_cls']
            if hasattr(cls, '__name__') and _short(code.co_filename) == _BUILD:
                found = cls, dict(values['args'])
    return found


def _wrong_types(cls: Any, arguments: dict[str, Any]) -> list[str]:
    """The arguments that are not a number, string or bool where one is expected."""
    try:
        hints = get_type_hints(cls.__init__ if isinstance(cls, type) else cls)
    except Exception:  # names that exist for type checkers only
        return []
    wrong = []
    for name, value in arguments.items():
        hint = hints.get(name)
        accepted = get_args(hint) if _is_union(hint) else (hint,)
        if not all(kind in _SIMPLE for kind in accepted):
            continue
        kinds = {*accepted, int} if float in accepted else set(accepted)
        # In Python, True is a number.
        fits = isinstance(value, tuple(kinds)) and (
            bool in kinds or not isinstance(value, bool)
        )
        if not fits:
            words = ['None' if k is type(None) else k.__name__ for k in accepted]
            wrong.append(f'{name}={value!r} must be of type {" or ".join(words)}')
    return wrong


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _shown(cls: Any, arguments: dict[str, Any]) -> str:
    """A call with those arguments that are short."""
    simple = [f'{k}={v!r}' for k, v in arguments.items() if isinstance(v, _SIMPLE)]
    text = f'{cls.__name__}({", ".join(simple)})'
    return text if len(text) < 120 else f'{cls.__name__}(…)'


def _is_ours(file: str) -> bool:
    """Whether a file belongs to this package, its tools or its projects."""
    path = Path(file).resolve()
    if path.is_relative_to(_PACKAGE):
        return True
    checkout = _PACKAGE.parent
    parts = ('tools', 'projects')
    return any(path.is_relative_to(checkout / part) for part in parts)


def _short(file: str) -> str:
    """A path, starting at its package."""
    parts = Path(file).parts
    if 'site-packages' in parts:
        parts = parts[parts.index('site-packages') + 1 :]
    else:
        parts = parts[-3:]
    return '/'.join(parts)
