"""Vision encoders in memory or in a folder: config, tensors, the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from mmtransmamba.models.folders.companions import copy_companions
from mmtransmamba.models.folders.config import read_model_config
from mmtransmamba.models.folders.loading import load_folder
from mmtransmamba.models.folders.sources import StateDictSource, TensorSource
from mmtransmamba.models.vision import ENCODERS, hybrid_class, is_encoder_type
from mmtransmamba.models.vision.families import PREFIX

TEXT_HALF = ('text_model.', 'text_projection', 'visual_projection', 'logit_')
"""Parts of a folder of vision and text other than the vision tower."""

_PAIRS = {'clip': 'clip_vision_model', 'siglip': 'siglip_vision_model'}
"""Models of vision and text, and the type of their vision tower."""

_PAIR_CLASSES = ('CLIPModel', 'SiglipModel')
"""Their classes from which the vision tower is taken."""


def is_encoder(model: nn.Module | str | Path) -> bool:
    """Whether a model, or a folder that contains one, is a vision encoder.

    Models that compare images with texts, such as CLIP, count as their vision tower.
    """
    if isinstance(model, nn.Module):
        kind = getattr(getattr(model, 'config', None), 'model_type', None)
    elif not Path(model).is_dir():  # the file of a language model, or nothing
        return False
    else:
        kind = read_model_config(model).get('model_type')
    return kind in _PAIRS or is_encoder_type(kind)


def load_encoder(folder: str | Path) -> nn.Module:
    """The vision encoder of a folder, with its head, possibly a hybrid.

    Nothing is downloaded, and no code in the folder is run.

    Raises:
        FileNotFoundError: The folder does not exist.
        CheckpointError: The folder's tensors do not match its config.
        ValueError: The model is of a class without a hybrid.
    """
    model_class, ignored = _class_in(folder)
    return load_folder(model_class, folder, ignored)


def _class_in(folder: str | Path) -> tuple[type[nn.Module], Callable[[str], bool]]:
    """Class of the model in a folder, and a predicate on names of ignored tensors."""
    raw = read_model_config(folder)
    kind = raw['model_type']
    if kind in _PAIRS:
        _check_pair((raw.get('architectures') or _PAIR_CLASSES)[0])
        tower = ENCODERS[_PAIRS[kind]].models[0].__name__.removeprefix('Hybrid')
        return getattr(transformers, tower), lambda name: name.startswith(TEXT_HALF)
    encoder = ENCODERS[kind.removeprefix(PREFIX)].models[0].__name__
    if not kind.startswith(PREFIX):
        encoder = encoder.removeprefix('Hybrid')
    name = (raw.get('architectures') or [encoder])[0]
    hybrid = _hybrid_of(name, kind)
    if kind.startswith(PREFIX):
        return hybrid, lambda name: False
    return getattr(transformers, name), lambda name: False


def _check_pair(name: str) -> None:
    """Refuse classes that do more with the vision tower than to compare it with texts.

    Their head would be lost.
    """
    if name not in _PAIR_CLASSES:
        raise ValueError(
            f'The model is a {name}; of models of vision and text, the vision tower of '
            f'{" and ".join(_PAIR_CLASSES)} is converted. Give the model without its '
            'head, or its vision_model.'
        )


def _hybrid_of(name: str, kind: str) -> type[nn.Module]:
    hybrid = hybrid_class(name, kind)
    if hybrid is None:
        models = ENCODERS[kind.removeprefix(PREFIX)].models
        accepted = ', '.join(cls.__name__.removeprefix('Hybrid') for cls in models)
        raise ValueError(
            f'The model is a {name}; of this family, hybrids exist of {accepted}.'
        )
    return hybrid


class PretrainedEncoder:
    """A vision encoder in memory or in a folder, opened once and passed on.

    Args:
        model: The model, or its folder. Of a model of vision and text, the vision
            tower is taken.

    Attributes:
        path: The folder, None for a model in memory.
        config: Its config.
        hybrid: The hybrid class that corresponds to its class.
        generation_config: None.

    Raises:
        FileNotFoundError: The folder does not exist.
        CheckpointError: The folder's tensors do not match its config.
        ValueError: The model is of a class without a hybrid, or already a hybrid.
    """

    generation_config = None

    def __init__(self, model: nn.Module | str | Path) -> None:
        self.path = None if isinstance(model, nn.Module) else Path(model)
        self._given = model
        kind = self._kind(model)
        if kind.startswith(PREFIX):
            raise ValueError(
                f'The teacher is a {kind!r}, which is already a hybrid; convert the '
                'Transformer that it was made from.'
            )
        self.config: Any = self.load().config
        self.hybrid = _hybrid_of(type(self.load()).__name__, self.config.model_type)

    def _kind(self, model: nn.Module | str | Path) -> str:
        if isinstance(model, nn.Module):
            return model.config.model_type
        return read_model_config(model)['model_type']

    def load(self) -> nn.Module:
        """The model, read once."""
        return self._model

    def on_its_device(self) -> nn.Module:
        """The model to run: of one in a folder a copy on the GPU, if there is one."""
        if self.path is None or not torch.cuda.is_available():
            return self._model
        return copy.deepcopy(self._model).to('cuda')

    @cached_property
    def _model(self) -> nn.Module:
        if self.path is not None:
            return load_encoder(self.path)
        if self._given.config.model_type not in _PAIRS:
            return self._given
        _check_pair(type(self._given).__name__)
        return self._given.vision_model

    @property
    def source(self) -> TensorSource:
        """Its tensors."""
        return StateDictSource(self._model.state_dict())

    def save_companions(self, folder: str | Path) -> None:
        """Write the image processor to another folder.

        A model in memory has none.
        """
        if self.path is not None:
            copy_companions(self.path, folder)
