"""Loading vision-language models: from a folder, the hub, or a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmtransmamba.apis.loading import LOADERS, load_trained
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.utils.dtypes import floating_dtype

_PROMPTS = ('template', 'template_variables', 'system', 'image_place')


def load_model(folder: str | Path) -> nn.Module:
    """The vision-language model of a folder.

    Raises:
        CheckpointError: The folder's weights do not match its config.
        ValueError: The folder contains another kind of model.
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


def load_chat_parts(
    config: str | Path | Config, checkpoint: str | Path | None = None
) -> tuple[nn.Module, Any, nn.Module, dict[str, Any]]:
    """The parts of a trained vision-language model that are needed for answers.

    Args:
        config, checkpoint: See :func:`~mmtransmamba.apis.loading.load_trained`; the
            model is a ``VisionLanguageModel``, or the student of a
            ``LanguageDistiller``.

    Returns:
        The transformers model, its processor, its head, and the options of
        :class:`~mmtransmamba.datasets.conversations.ConversationEncoder` by which the
        config's data become prompts.

    Raises:
        FileNotFoundError: A file does not exist.
        CheckpointError: The checkpoint does not fit the model.
        ValueError: The config has no vision-language model.
    """
    from mmtransmamba.models.trainable import VisionLanguageModel

    model = load_trained(config, checkpoint, VisionLanguageModel)
    prompts = _prompts_of(model._config)
    return model.lm, model.companions.processor, model.head, prompts


def _prompts_of(config: Config) -> dict[str, Any]:
    """How the config's data make prompts; the first data set that says so counts."""
    found: dict[str, Any] = {}
    for name in LOADERS:
        dataset = (config.get(name) or {}).get('dataset') or {}
        while 'dataset' in dataset:
            dataset = dataset['dataset']
        given = {key: dataset.get(key) for key in _PROMPTS}
        found = {k: v for k, v in given.items() if v is not None} | found
    return found


def choose_device(device: str | torch.device) -> torch.device:
    """A device; ``'auto'`` is the GPU if available.

    Raises:
        ValueError: The device does not exist.
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
    """A floating-point type, given by name or as itself.

    Raises:
        ValueError: The type does not exist.
    """
    return floating_dtype(dtype) if isinstance(dtype, str) else dtype
