"""The package's configs, by name."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path

from mmengine.config import Config

from mmtransmamba.utils import launch

_PACKAGE = Path(__file__).resolve().parent.parent


def list_models(pattern: str = '*') -> list[str]:
    """Names of the package's configs, sorted.

    A name is the file name of a config without ``.py``. It specifies model, recipe,
    batch size and data, as explained in ``docs/configs.md``.

    Args:
        pattern: Only names that match this shell pattern (``'*vim*'``).
    """
    return sorted(name for name in _files() if fnmatch(name, pattern))


def get_config(name: str) -> Config:
    """A config of the package.

    Args:
        name: One of :func:`list_models`.

    Raises:
        ValueError: No config has this name; the message lists similar names.
    """
    files = _files()
    if name not in files:
        similar = get_close_matches(name, files, n=3, cutoff=0.5)
        hint = f'; similar: {", ".join(similar)}' if similar else ''
        raise ValueError(
            f'no config has the name "{name}"{hint}. list_models() has all of them'
        )
    return launch.read_config(files[name])


def read_config(config: str | Path | Config) -> Config:
    """A config, given as itself, as its file, or as its name in the package.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: Neither a file nor a config of the package has this name.
    """
    if isinstance(config, Config):
        return config
    if Path(config).suffix == '.py':
        return launch.read_config(config)
    return get_config(str(config))


def config_folder() -> Path:
    """The folder of the package's configs.

    Raises:
        FileNotFoundError: The package was installed without them.
    """
    # When installed, the configs are inside the package; in a checkout, next to it.
    for folder in (_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs'):
        if folder.is_dir():
            return folder
    raise FileNotFoundError('the configs of the package are not installed')


def _files() -> dict[str, Path]:
    paths = config_folder().rglob('*.py')
    return {p.stem: p for p in paths if '_base_' not in p.parts}
