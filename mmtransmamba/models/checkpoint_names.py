"""Removal of the prefixes that wrappers add to the names of a checkpoint's tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TypeVar

T = TypeVar('T')

# Words that torch.compile, FSDP and activation checkpointing insert into names.
_INNER = ('_orig_mod.', '_fsdp_wrapped_module.', '_checkpoint_wrapped_module.')
_PARALLEL = 'module.'
# Counters and other entries of an averaged model besides its weights.
_COUNTERS = {'steps', 'n_averaged', 'step', 'initted', 'decay', 'num_updates'}
# Attributes under which training code stores the model.
_HOLDERS = {
    'module', 'model', 'net', 'network', 'backbone', 'student', 'ema', 'ema_model',
    'model_ema', 'online_model', 'base_model', 'wrapped_model', '_forward_module',
    'encoder', 'vision_encoder', 'image_encoder', 'online_encoder', 'target_encoder',
    'momentum_encoder', 'encoder_q', 'trunk', 'vit', 'classifier', '_model', '_module',
    'inner_model', 'wrapped', 'ddp', 'ddp_model', 'averaged_model', 'swa_model',
    'shadow_model', 'ema_net', 'ema_network', 'ema_student', 'student_model',
    'model_student', 'distiller',
}  # fmt: skip
_STUDENT, _TEACHER = 'student.', 'teacher.'


class AmbiguousNamesError(ValueError):
    """Two tensors of a checkpoint would have the same name in the model."""


def unwrapped_names(state: Mapping[str, T]) -> dict[str, T]:
    """A state dict without the prefixes of wrapped, parallel and averaged models.

    ``module.`` is removed as often as all tensors have it. The words of
    ``torch.compile``, FSDP and activation checkpointing are removed at any position.

    Raises:
        AmbiguousNamesError: Two tensors would have the same name.
    """
    found = dict(state)
    while True:
        plain = _renamed(found, _without_inner)
        rest = [key for key in plain if not key.startswith(_PARALLEL)]
        # An averaged model counts its updates.
        if len(rest) == len(plain) or not set(rest) <= _COUNTERS:
            return plain
        found = {
            key[len(_PARALLEL) :]: v for key, v in plain.items() if key not in rest
        }


def _without_inner(key: str) -> str:
    for word in _INNER:
        key = key.replace(word, '')
    return key


def names_of_model(state: Mapping[str, T], own: Collection[str]) -> dict[str, T]:
    """A state dict with the tensor names of a model.

    A prefix of attributes under which training code stored the model, such as
    ``model.``, ``student.`` or ``model.backbone.``, is removed if more names match the
    model's without it. Tensors outside the model keep the rest of their names
    (``model.head.fc`` becomes ``head.fc``); a student's teacher is omitted.

    Args:
        state: Tensors by name, see :func:`unwrapped_names`.
        own: Names of the model's tensors.

    Raises:
        AmbiguousNamesError: The names match the model's after removal of either of two
            prefixes, as for a model and its average, or two tensors would have the
            same name.
    """
    own = set(own)
    matches = Counter({'': sum(key in own for key in state)})
    for key in state:
        parts = key.split('.')
        for depth in range(1, len(parts)):
            if parts[depth - 1] not in _HOLDERS:
                break
            if '.'.join(parts[depth:]) in own:
                matches['.'.join(parts[:depth]) + '.'] += 1
    most = max(matches.values())
    if matches[''] == most:
        return dict(state)
    prefixes = sorted(prefix for prefix, count in matches.items() if count == most)
    if len(prefixes) > 1:
        raise AmbiguousNamesError(
            f'its names are those of the model after each of {", ".join(prefixes)}: it '
            'holds several models. Save the one that is meant by itself'
        )
    (prefix,) = prefixes
    words = prefix.split('.')[:-1]

    def short(key: str) -> str:
        parts = key.split('.')
        depth = 0
        while depth < len(words) and parts[depth : depth + 1] == [words[depth]]:
            depth += 1
        return '.'.join(parts[depth:])

    if _STUDENT in prefix:
        outer = prefix[: prefix.index(_STUDENT)]
        state = {k: v for k, v in state.items() if not k.startswith(outer + _TEACHER)}
    return _renamed(state, short)


def _renamed(state: Mapping[str, T], rename) -> dict[str, T]:
    renamed: dict[str, T] = {}
    before: dict[str, str] = {}
    for key, value in state.items():
        name = rename(key)
        if name in renamed:
            raise AmbiguousNamesError(
                f'{before[name]} and {key} are both {name} without their wrappers'
            )
        renamed[name], before[name] = value, key
    return renamed
