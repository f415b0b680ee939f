"""Configs dumped by a Runner, read as data."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from mmengine.config import Config

_NAMES = {'inf': float('inf'), 'nan': float('nan')}


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
        tree = ast.parse(path.read_text(encoding='utf-8'))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f'"{path}" is not a config: {error}') from error
    fields = {}
    for node in tree.body:
        try:
            if not isinstance(node, ast.Assign) or len(node.targets) != 1:
                raise ValueError
            fields[_name(node.targets[0])] = _value(node.value)
        except ValueError as error:
            raise ValueError(
                f'"{path}", line {node.lineno}: not a plain value, as in the configs '
                'that a Runner saves. If you trust the file, give it as config='
            ) from error
    return Config(fields, filename=str(path))


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
