"""Vision-language models to talk to: from a folder, the hub, or a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmtransmamba.engine.student import student_config
from mmtransmamba.models.checkpoint import CheckpointError, read_state_dict
from mmtransmamba.models.fit import check_fit
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.dtypes import floating_dtype

_LOADERS = ('test_dataloader', 'val_dataloader', 'train_dataloader')


def load_model(folder: str | Path) -> nn.Module:
    """The vision-language model of a folder.

    Raises:
        CheckpointError: The folder's weights are not those of its config.
        ValueError: It holds another kind of model.
    """
    from mmtransmamba.models.folders import load_vlm

    try:
        return load_vlm(folder)
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(
            f'"{folder}" holds no vision-language model that could be loaded: '
            f'{str(error).splitlines()[0]}'
        ) from error


def load_trained(
    config: str | Path | Config, checkpoint: str | Path | None = None
) -> tuple[nn.Module, Any, nn.Module, str | None]:
    """The model of a config, with the weights that training gave it.

    Args:
        config: A config, or its file, whose model is a ``VisionLanguageModel`` or a
            ``LanguageDistiller``, of which the student is taken.
        checkpoint: File of a checkpoint; without one the model is what the config
            begins with.

    Returns:
        The transformers model, its processor, its head, and the chat template that the
        config's data are written with, if it names one.

    Raises:
        FileNotFoundError: A file does not exist.
        CheckpointError: The checkpoint does not fit the model.
        ValueError: The config has no vision-language model.
    """
    from mmtransmamba.models.trainable import VisionLanguageModel

    if not isinstance(config, Config):
        if not Path(config).is_file():
            raise FileNotFoundError(f'There is no config at {config}.')
        config = Config.fromfile(config)
    where = config.filename or 'The config'
    settings = config.get('model') or {}
    head = settings.get('head')
    settings = student_config(settings)
    with DefaultScope.overwrite_default_scope('mmtransmamba'):
        kind = MODELS.get(settings.get('type')) if settings.get('type') else None
        if not (isinstance(kind, type) and issubclass(kind, VisionLanguageModel)):
            raise ValueError(
                f'{where}: its model, or the student in it, has to be a '
                f'VisionLanguageModel, got {settings.get("type")!r}.'
            )
        model = MODELS.build(settings)
        head = model.head if head is None else MODELS.build(head)
    if checkpoint is not None:
        load_weights(model.lm, checkpoint)
    return model.lm, model.companions.processor, head, _template_of(config)


def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a checkpoint of training into a transformers model.

    Args:
        model: The model.
        checkpoint: File whose tensors have the names of the model. Those that a
            distiller has besides (``distiller.…``) are left out.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It does not fit.
    """
    from mmtransmamba.models.trainable.naming import OWN_PREFIX

    if Path(checkpoint).is_dir():
        raise FileNotFoundError(
            f'"{checkpoint}" is a folder, not the checkpoint of a config. If a model '
            'was saved there, give the folder alone.'
        )
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'There is no checkpoint at {checkpoint}.')
    state = read_state_dict(checkpoint)
    state = {k: v for k, v in state.items() if not k.startswith(OWN_PREFIX)}
    check_fit(model, state, '')
    # Of tied tensors one may be missing; check_fit has looked at all others.
    model.load_state_dict(state, strict=False)


def _template_of(config: Config) -> str | None:
    """The chat template that the data of a config ask for."""
    for name in _LOADERS:
        dataset = (config.get(name) or {}).get('dataset') or {}
        while 'dataset' in dataset:
            dataset = dataset['dataset']
        if dataset.get('template'):
            return dataset['template']
    return None


def choose_device(device: str | torch.device) -> torch.device:
    """A device; of ``'auto'`` the GPU if there is one.

    Raises:
        ValueError: There is no such device.
    """
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f'device={str(device)!r} cannot be used; give "auto", "cpu", or a GPU that '
            f'is there, such as "cuda:0": {str(error).splitlines()[0]}'
        ) from error
    return chosen


def choose_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A floating-point type, by name or itself.

    Raises:
        ValueError: There is no such type.
    """
    return floating_dtype(dtype) if isinstance(dtype, str) else dtype
