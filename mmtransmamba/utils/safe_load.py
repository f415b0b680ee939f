"""Reading of ``torch.save`` files without running anything that they name."""

from __future__ import annotations

import _compat_pickle
import os
import pickletools
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
from torch.serialization import safe_globals

from mmtransmamba.utils.inert_types import (
    SETTINGS,
    STAND_INS,
    Inert,
    without_stand_ins,
)

TRUST_VARIABLE = 'MMTRANSMAMBA_TRUST_CHECKPOINTS'
"""Set to 1, checkpoints are read with Python's pickle, and run what they name."""

_KNOWN = {name for _, name in STAND_INS} | SETTINGS
_PICKLES = 4  # in a file from before zip archives: three in its head, and the content
_config_texts: set[str] = set()  # found in checkpoints
_weights_only: set[str] = set()  # files of which only the weights are used


class UnsafeFileError(ValueError):
    """A file that can only be read by running code that it names."""


def trusts_files() -> bool:
    """Whether the user has allowed checkpoints to run code."""
    return os.environ.get(TRUST_VARIABLE, '').lower() in ('1', 'true', 'yes', 'on')


def use_weights_only(path: str | Path) -> None:
    """Read foreign classes in a file as empty mappings from now on.

    Use this for a file of which only the weights are used: nothing is lost then.
    """
    _weights_only.add(os.path.abspath(path))


def load_file(
    file: str | Path | IO[bytes],
    map_location: Any = 'cpu',
    foreign: str = 'refuse',
) -> Any:
    """Read a ``torch.save`` file, in the zip format or an older one.

    Tensors and plain Python data are returned unchanged, and so are numpy's arrays and
    numbers and mmengine's ``HistoryBuffer``. The settings of training scripts become
    mappings. Nothing else that the file names is imported or called.

    Args:
        file: A path or an open file.
        map_location: As for ``torch.load``.
        foreign: Treatment of classes of other packages: ``'refuse'`` them, or read them
            as :class:`~mmtransmamba.utils.inert_types.Inert`. Anything of Python,
            PyTorch and numpy other than data is always refused.

    Raises:
        UnsafeFileError: The file names something else. The message contains the name
            and how to permit it.
        ValueError: The file is damaged, or was not written by ``torch.save``.
        OSError: The file cannot be read.
    """
    if trusts_files():
        return torch.load(file, map_location=map_location, weights_only=False)
    allowed = [(Inert, name) for name in SETTINGS] + STAND_INS
    if isinstance(file, (str, Path)) and os.path.abspath(file) in _weights_only:
        foreign = 'inert'
    if foreign != 'refuse':
        found = _foreign(_named(file))
        allowed += [(Inert, name) for name in found if not _has_code(name)]
    try:
        with safe_globals(allowed):
            content = torch.load(file, map_location=map_location, weights_only=True)
    except torch.OutOfMemoryError:
        raise
    except OSError:
        raise
    except Exception as error:
        raise _explained(file, error) from error
    content = without_stand_ins(content)
    _remember_configs(content)
    return content


def check_config(text: str) -> None:
    """Check that a config to be executed does not come from a checkpoint.

    Raises:
        UnsafeFileError: ``text`` is a config from a checkpoint.
    """
    if text in _config_texts:
        raise UnsafeFileError(
            'A checkpoint holds a config, which is Python code and was not run. Give '
            f'the config as a file of its own, or set {TRUST_VARIABLE}=1 if you trust '
            'who made the checkpoint.'
        )


def _remember_configs(content: Any) -> None:
    """Record the configs in a checkpoint, which are Python code."""
    for *parts, last in (
        ('meta', 'cfg'),
        ('meta', 'config'),
        ('message_hub', 'runtime_info', 'cfg'),
    ):
        holder = content
        for part in parts:
            holder = holder.get(part) if isinstance(holder, dict) else None
        text = holder.get(last) if isinstance(holder, dict) else None
        if isinstance(text, str):
            _config_texts.add(text)


def _may_be_saved(file: str | Path | IO[bytes]) -> bool:
    """Whether a file starts like one of ``torch.save``: a zip archive or a pickle."""
    if not isinstance(file, (str, Path)):
        return True
    with open(file, 'rb') as start:
        return start.read(2)[:1] in (b'P', b'\x80')


def _explained(file: str | Path | IO[bytes], error: Exception) -> ValueError:
    """The error for a file that could not be read."""
    name = f'"{file}"' if isinstance(file, (str, Path)) else 'the checkpoint'
    found = _foreign(_named(file))
    if not found and not (isinstance(error, UnpicklingError) and _may_be_saved(file)):
        reason = _reason(error) or type(error).__name__
        return ValueError(f'{name} is damaged or no file of torch.save: {reason}')
    if found:
        names = ', '.join(_of_python_3(name) for name in found[:3])
        refused = f'names {names}, which is not data'
    else:
        refused = f'holds more than data ({_reason(error)})'
    return UnsafeFileError(
        f'{name} {refused}: reading it could run code, so it was not read. If you '
        f'trust who made the file, set {TRUST_VARIABLE}=1, or allow a class of your '
        'own with torch.serialization.add_safe_globals in a module of custom_imports.'
    )


def _reason(error: Exception) -> str:
    """The first line of the error of torch's reader, without its advice."""
    text = str(error).partition('\n\nCheck the documentation')[0]
    text = re.sub(r'(?s).*\n\n|.*WeightsUnpickler error: ', '', text).strip()
    return text.splitlines()[0] if text else ''


def _foreign(names: list[str]) -> list[str]:
    """The names in a file that torch does not know as safe."""
    reader = torch._weights_only_unpickler
    safe = {*reader._get_allowed_globals(), *reader._get_user_allowed_globals()}
    return [
        name
        for name in dict.fromkeys(names)
        if name not in safe | _KNOWN and not re.fullmatch(r'torch\.\w*Storage', name)
    ]


def _has_code(name: str) -> bool:
    """Whether a name belongs to a package that is always present and contains code."""
    package = _of_python_3(name).partition('.')[0]
    return package in sys.stdlib_module_names | {'torch', 'numpy', 'mmengine'}


def _of_python_3(name: str) -> str:
    """The Python 3 name for a name that pickle wrote for Python 2.

    torch's reader knows only some of these names.
    """
    module, _, attribute = name.rpartition('.')
    renamed = _compat_pickle.IMPORT_MAPPING.get(module, module), attribute
    return '.'.join(_compat_pickle.NAME_MAPPING.get((module, attribute), renamed))


def _named(file: str | Path | IO[bytes]) -> list[str]:
    """The names in a file's pickles, as ``module.name``; some of them if damaged."""
    opened: IO[bytes] = open(file, 'rb') if isinstance(file, (str, Path)) else file
    names: list[str] = []
    try:
        opened.seek(0)
        _read_names(opened, names.append)
    except (ValueError, EOFError, KeyError, IndexError, zipfile.BadZipFile):
        pass
    finally:
        if opened is file:
            opened.seek(0)
        else:
            opened.close()
    return names


def _read_names(file: IO[bytes], add: Callable[[str], None]) -> None:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.rpartition('/')[2] == 'data.pkl':
                    _names_of_pickle(archive.read(name), add)
        return
    file.seek(0)
    for _ in range(_PICKLES):
        _names_of_pickle(file, add)


def _names_of_pickle(content: bytes | IO[bytes], add: Callable[[str], None]) -> None:
    reader = torch._weights_only_unpickler
    texts: list[str] = []  # the last two may be module and name
    for code, argument, _ in pickletools.genops(content):
        if code.name == 'GLOBAL':
            module, _, name = argument.partition(' ')
            # Protocol 2 uses the names of Python 2.
            renamed = reader.IMPORT_MAPPING.get(module, module), name
            add('.'.join(reader.NAME_MAPPING.get((module, name), renamed)))
        elif code.name == 'STACK_GLOBAL':
            add('.'.join(texts[-2:]))
        elif isinstance(argument, str):
            texts.append(argument)
