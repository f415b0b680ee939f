"""Configs and settings that may come from anywhere, read as data.

A config is a program, so one that a Runner has written is parsed, not run. A registry
of mmengine gives whatever a ``type`` names: ``subprocess.call`` too, and it imports the
package of a scope. Some models run a file that they are given as their config. So
settings from a file are looked through before they are built.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from mmtransmamba.compat import known_scopes, unregistered_names
from mmtransmamba.registry import MODELS, SCOPE, TASK_UTILS

_NAMES = {'inf': float('inf'), 'nan': float('nan')}
_SCOPES = {
    '',
    SCOPE,
    'torch.nn',
    'mmengine',
    'mmpretrain',
    'mmaction',
    'mmseg',
    'mmdet',
}
_LEFT_OUT = ('init_cfg',)  # what a model starts from is in its checkpoint


def read_dumped_config(path: str | Path) -> Config:
    """Read a config dumped by mmengine, without executing it.

    Such a file assigns only literals and ``dict(...)`` to names. A hand-written config
    may run any code, but this one comes with a checkpoint and must not.

    Args:
        path: File in the work directory of a training run.

    Raises:
        ValueError: The file contains anything else; the message names the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise ValueError(f'"{path}" is not a config: {error}') from error
    return Config(parse_dumped_config(text, path), filename=str(path))


def parse_dumped_config(text: str, name: str | Path = 'the config') -> dict[str, Any]:
    """The fields in the text of a config dumped by mmengine; nothing is executed.

    Args:
        text: The text.
        name: Where it is from, for errors.

    Raises:
        ValueError: See :func:`read_dumped_config`.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f'"{name}" is not a config: {error}') from error
    fields = {}
    for node in tree.body:
        try:
            if not isinstance(node, ast.Assign) or len(node.targets) != 1:
                raise ValueError
            fields[_name(node.targets[0])] = _value(node.value)
        except ValueError as error:
            raise ValueError(
                f'"{name}", line {node.lineno}: not a plain value, as in the configs '
                'that a Runner saves. If you trust the file, give it as config='
            ) from error
    return fields


def _name(node: ast.expr) -> str:
    if not isinstance(node, ast.Name):
        raise ValueError
    return node.id


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        return _called_dict(node)
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError
        return {
            _value(key): _value(value)
            for key, value in zip(node.keys, node.values, strict=True)
        }
    if isinstance(node, ast.List | ast.Tuple):
        kind = list if isinstance(node, ast.List) else tuple
        return kind(map(_value, node.elts))
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Name):
        if isinstance(node.op, ast.USub):
            return -_value(node.operand)
    return ast.literal_eval(node)


def _called_dict(node: ast.Call) -> dict:
    """``dict(a=1)``, or ``dict({'not a name': 1})``, as mmengine writes them."""
    if _name(node.func) != 'dict' or len(node.args) > 1:
        raise ValueError
    if any(keyword.arg is None for keyword in node.keywords):
        raise ValueError
    if not all(isinstance(value, ast.Dict) for value in node.args):
        raise ValueError
    value = _value(node.args[0]) if node.args else {}
    return value | {keyword.arg: _value(keyword.value) for keyword in node.keywords}


@contextmanager
def only_registered(settings: Mapping[str, Any]) -> Iterator[None]:
    """A context in which parts of a config can be built that may come from anywhere.

    Within it, a ``type`` names what is registered, or a layer of torch; nothing is
    imported for any other.

    Args:
        settings: All that is going to be built, with ``default_scope``.

    Raises:
        ValueError: They name an unknown package, a program, or code from the hub.
    """
    _check_sources(settings, {*_SCOPES, *known_scopes()})

    def layer_of_torch(name: str) -> Any:
        found = getattr(nn, name.removeprefix('torch.nn.'), None)
        is_layer = isinstance(found, type) and issubclass(found, nn.Module)
        return found if name.startswith('torch.nn.') and is_layer else None

    with unregistered_names(layer_of_torch):
        yield


def _check_sources(settings: Any, scopes: Collection[str], key: str = '') -> None:
    """Refuse what a registered class would take from outside.

    Raises:
        ValueError: There is something.
    """
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            _check_sources(value, scopes, name)
        return
    if isinstance(settings, (list, tuple)):
        for value in settings:
            _check_sources(value, scopes, key)
        return
    what = None
    if key == 'trust_remote_code' and settings:
        what = 'code from the hub'
    elif isinstance(settings, str):
        scope = settings.rpartition('.')[0] if key == 'type' else settings
        if key in ('type', '_scope_', 'default_scope') and scope not in scopes:
            what = 'another package'
        elif settings.endswith('.py'):
            what = 'a program'
    if what is not None:
        raise ValueError(
            f'The config has {key}={settings!r}, {what}, and making the model could '
            'run it. If you trust the config, give its file as config='
        )


def check_data(settings: Any) -> None:
    """Check that settings are plain data and name parts of this package alone.

    Raises:
        ValueError: They do not; the message says what they name.
    """
    if isinstance(settings, list):
        for value in settings:
            check_data(value)
    elif isinstance(settings, dict):
        for key, value in settings.items():
            if key.startswith('_') or key in _LEFT_OUT:
                raise ValueError(f'The settings of the model have {key}={value!r}.')
            if key == 'type':
                _check_type(value)
            check_data(value)
    elif isinstance(settings, str) and settings.endswith('.py'):
        raise ValueError(f'The settings of the model name a program, {settings!r}.')
    elif not (settings is None or isinstance(settings, (str, int, float))):
        raise ValueError(
            f'The settings of the model have an object of {type(settings).__name__}.'
        )


def _check_type(name: Any) -> None:
    scope, _, short = name.rpartition('.') if isinstance(name, str) else ('?', '', '')
    for registry in (MODELS, TASK_UTILS):
        registry.import_from_location()
        found = registry.module_dict.get(short)
        if scope in ('', SCOPE) and getattr(found, '__module__', '').startswith(
            f'{SCOPE}.'
        ):
            return
    raise ValueError(
        f'The settings of the model name {name!r}, which is not part of {SCOPE}, and '
        'making it could run code.'
    )


def as_data(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings of a config as JSON has them, None if they are not only data."""
    try:
        data = json.loads(json.dumps(_without(settings)))
        check_data(data)
    except (TypeError, ValueError):
        return None
    return data


def _without(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        return {k: _without(v) for k, v in settings.items() if k not in _LEFT_OUT}
    if isinstance(settings, (list, tuple)):
        return [_without(value) for value in settings]
    return settings
