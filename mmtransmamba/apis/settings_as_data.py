"""Settings of a model that may come from anywhere.

A registry of mmengine gives whatever a ``type`` names: ``subprocess.call`` too, and it
imports the package of a scope. So settings from a file are looked through first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmtransmamba.registry import MODELS, SCOPE, TASK_UTILS

_LEFT_OUT = ('init_cfg',)  # what a model starts from is in its checkpoint


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
        f'The settings of the model name {name!r}, which is no part of {SCOPE}, and '
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
