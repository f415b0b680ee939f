"""Reading what ``torch.save`` wrote without running anything that it names."""

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
_PICKLES = 4  # of a file from before zip archives: three of its head, and the content
_config_texts: set[str] = set()  # found in checkpoints
_weights_only: set[str] = set()  # files of which nothing but the weights is used


class UnsafeFileError(ValueError):
    """A file that can only be read by running what it names."""


def trusts_files() -> bool:
    """Whether the user has said that checkpoints may run code."""
    return os.environ.get(TRUST_VARIABLE, '').lower() in ('1', 'true', 'yes', 'on')


def use_weights_only(path: str | Path) -> None:
    """Have foreign classes in a file read as empty mappings from now on.

    It is for a file whose weights alone are used: there is nothing to lose then.
    """
    _weights_only.add(os.path.abspath(path))


def load_file(
    file: str | Path | IO[bytes],
    map_location: Any = 'cpu',
    foreign: str = 'refuse',
) -> Any:
    """Read a file of ``torch.save``, in the format of zip archives or an older one.

    Tensors and plain Python data are read as they are, numpy's arrays and numbers and
    mmengine's ``HistoryBuffer`` too, and the settings of training scripts as mappings.
    Nothing else that the file names is imported or called.

    Args:
        file: Its path, or the open file.
        map_location: As for ``torch.load``.
        foreign: What to do with classes of other packages: ``'refuse'`` them or read
            them as :class:`~mmtransmamba.utils.inert_types.Inert`. What Python,
            PyTorch and numpy have beside data is refused always.

    Raises:
        UnsafeFileError: The file names something else. The message has the name, and
            how to permit it.
        ValueError: The file is damaged, or none of ``torch.save``.
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
    """Check that a config to be run does not come from a checkpoint.

    Raises:
        UnsafeFileError: ``text`` is a config that a checkpoint held.
    """
    if text in _config_texts:
        raise UnsafeFileError(
            'A checkpoint holds a config, which is Python code and was not run. Give '
            f'the config as a file of its own, or set {TRUST_VARIABLE}=1 if you trust '
            'who made the checkpoint.'
        )


def _remember_configs(content: Any) -> None:
    """Note the configs in a checkpoint, which are Python code."""
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
    """Whether a file begins as those of ``torch.save``: a zip archive or a pickle."""
    if not isinstance(file, (str, Path)):
        return True
    with open(file, 'rb') as start:
        return start.read(2)[:1] in (b'P', b'\x80')


def _explained(file: str | Path | IO[bytes], error: Exception) -> ValueError:
    """What to tell the user of a file that could not be read."""
    name = f'"{file}"' if isinstance(file, (str, Path)) else 'the checkpoint'
    found = _foreign(_named(file))
    if not found and not (isinstance(error, UnpicklingError) and _may_be_saved(file)):
        reason = _reason(error) or type(error).__name__
        return ValueError(f'{name} is damaged or no file of torch.save: {reason}')
    if found:
        names = ', '.join(_of_python_3(name) for name in found[:3])
        refused = f'names {names}, which is no data'
    else:
        refused = f'holds more than data ({_reason(error)})'
    return UnsafeFileError(
        f'{name} {refused}: reading it could run code, so it was not read. If you '
        f'trust who made the file, set {TRUST_VARIABLE}=1, or allow a class of your '
        'own with torch.serialization.add_safe_globals in a module of custom_imports.'
    )


def _reason(error: Exception) -> str:
    """The first line of what torch's reader met, without its advice."""
    text = str(error).partition('\n\nCheck the documentation')[0]
    text = re.sub(r'(?s).*\n\n|.*WeightsUnpickler error: ', '', text).strip()
    return text.splitlines()[0] if text else ''


def _foreign(names: list[str]) -> list[str]:
    """Of the names in a file, those that torch does not know as safe."""
    reader = torch._weights_only_unpickler
    safe = {*reader._get_allowed_globals(), *reader._get_user_allowed_globals()}
    return [
        name
        for name in dict.fromkeys(names)
        if name not in safe | _KNOWN and not re.fullmatch(r'torch\.\w*Storage', name)
    ]


def _has_code(name: str) -> bool:
    """Whether a name is of a package that is always there and has more than data."""
    package = _of_python_3(name).partition('.')[0]
    return package in sys.stdlib_module_names | {'torch', 'numpy', 'mmengine'}


def _of_python_3(name: str) -> str:
    """A name that pickle has written as that of Python 2, as it is now.

    torch's reader knows but some of these names.
    """
    module, _, attribute = name.rpartition('.')
    renamed = _compat_pickle.IMPORT_MAPPING.get(module, module), attribute
    return '.'.join(_compat_pickle.NAME_MAPPING.get((module, attribute), renamed))


def _named(file: str | Path | IO[bytes]) -> list[str]:
    """The names in a file's pickles, as ``module.name``; of a damaged one, some."""
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
            # Protocol 2 has the names of Python 2.
            renamed = reader.IMPORT_MAPPING.get(module, module), name
            add('.'.join(reader.NAME_MAPPING.get((module, name), renamed)))
        elif code.name == 'STACK_GLOBAL':
            add('.'.join(texts[-2:]))
        elif isinstance(argument, str):
            texts.append(argument)
