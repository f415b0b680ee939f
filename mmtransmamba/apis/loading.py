"""Loading of any model that this package wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmtransmamba.apis.configs import read_config
from mmtransmamba.engine.student import student_config
from mmtransmamba.models.checkpoint import load_pretrained, read_state_dict
from mmtransmamba.models.folders import (
    is_encoder,
    is_vision_language,
    load_encoder,
    load_lm,
    load_vlm,
)
from mmtransmamba.models.language import cast_parameters
from mmtransmamba.models.trainable import EncoderClassifier
from mmtransmamba.models.trainable.adapters import ALPHA, merged_state
from mmtransmamba.registry import DATASETS, MODELS
from mmtransmamba.utils.config_data import only_registered, read_dumped_config
from mmtransmamba.utils.launch import last_checkpoint

LOADERS = ('test_dataloader', 'val_dataloader', 'train_dataloader')
_MODEL_FOLDERS = ('student', 'model')
"""Where a training of language models saves the folder of the trained one."""


def load(
    path: str | Path,
    config: str | Path | Config | None = None,
    device: str | torch.device = 'cpu',
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Load a model, ready for inference.

    Args:
        path: One of

            * the folder of a language model, a vision-language model or a vision
              encoder, converted or not, in transformers' format;
            * the work directory of a training run, from which the saved model or the
              last complete checkpoint is loaded;
            * a checkpoint file, with its config in the same folder.
        config: The config of a checkpoint in another folder, its file, or its name in
            the package. By default, the config that the training saved next to the
            checkpoint is read as data: no code in it is run.
        device: Device of the model.
        dtype: Floating-point type of the model; by default that of the saved weights.
            SSM parameters of transformers models stay float32.

    Returns:
        A transformers model, or the model of the config, in evaluation mode. Under a
        distiller this is the student, without the teacher.

    Raises:
        FileNotFoundError: There is nothing at ``path``, or no config next to it.
        CheckpointError: The weights do not match the config; no parameter is left at
            random values.
        ValueError: The folder holds another kind of model.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f'there is no "{path}"')
    folder = find_model_folder(path)
    if folder is not None and config is None:
        model = _read_folder(folder)
    else:
        model = _from_checkpoint(path, config)
    if dtype is not None:
        model = _cast(model, dtype)
    return model.to(device).eval()


def _read_folder(folder: Path) -> nn.Module:
    if is_encoder(folder):
        return load_encoder(folder)
    return (load_vlm if is_vision_language(folder) else load_lm)(folder)


def find_model_folder(path: Path) -> Path | None:
    """The folder of a transformers model at ``path``, or in a run's work directory.

    Returns:
        None if there is none.
    """
    for folder in (path, *(path / name for name in _MODEL_FOLDERS)):
        if (folder / 'config.json').is_file():
            return folder
    return None


def _from_checkpoint(path: Path, config: str | Path | Config | None) -> nn.Module:
    work_dir, checkpoint = (path, None) if path.is_dir() else (path.parent, path)
    trusted = config is not None
    file = None if trusted else _config_in(work_dir)
    if file is not None:
        config = read_dumped_config(file)
    if checkpoint is None:
        own = Config() if config is None else read_config(config)
        found = last_checkpoint(own, work_dir)
        if found is None:
            raise FileNotFoundError(
                f'"{path}" has neither a config.json, as a model folder has, nor a '
                'complete checkpoint, as the folder of a training run has'
            )
        checkpoint = Path(found)
    if config is None:
        raise FileNotFoundError(
            f'"{work_dir}" has no config (*.py), as the work directory of a training '
            'has; give config='
        )
    if trusted:
        return load_trained(config, checkpoint)
    with only_registered(_built(config)):
        return load_trained(config, checkpoint)


def _built(config: Config) -> dict[str, Any]:
    """The parts of a config that :func:`load_trained` builds or looks up."""
    sets = ((config.get(name) or {}).get('dataset') or {} for name in LOADERS)
    return dict(
        default_scope=config.get('default_scope', ''),
        model=student_config(config.get('model') or {}),
        data_preprocessor=config.get('data_preprocessor'),
        datasets=[dict(type=each.get('type') or '') for each in sets],
    )


def load_trained(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    kind: type[nn.Module] = nn.Module,
) -> nn.Module:
    """The trained model of a config, or the student of a distiller.

    Args:
        config: A config, its file, or its name in the package.
        checkpoint: File with the weights; without one, the model has the initial
            weights of the config.
        kind: Class that the model must have.

    Returns:
        The model, with the config and the available information on its classes.

    Raises:
        FileNotFoundError: A file does not exist.
        CheckpointError: The checkpoint does not fit the model.
        ValueError: The config has a mistake, or a model of another kind.
    """
    config = read_config(config)
    settings = student_config(config.get('model') or {})
    if checkpoint is not None:
        _check_file(Path(checkpoint))
    with DefaultScope.overwrite_default_scope(
        config.get('default_scope', 'mmtransmamba')
    ):
        _check_kind(settings.get('type'), kind, config.filename)
        data_preprocessor = config.get('data_preprocessor')
        if data_preprocessor is not None:
            settings = {'data_preprocessor': data_preprocessor, **settings}
        model = MODELS.build(settings)
        if checkpoint is not None:
            # The names are those of the inner transformers model, if there is one.
            inner = getattr(model, 'lm', model)
            if isinstance(model, EncoderClassifier):
                inner = model.encoder
            load_pretrained(
                inner, _trained_state(config, checkpoint), name=str(checkpoint)
            )
        model._config = config
        model._dataset_meta = _metainfo(config)
    return model


def _trained_state(config: Config, checkpoint: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, with the adapters of its training merged."""
    state = read_state_dict(checkpoint)
    adapters = (config.get('model') or {}).get('adapters')
    if adapters is None:
        return state
    return merged_state(state, adapters.get('alpha', ALPHA))


def _check_file(checkpoint: Path) -> None:
    if checkpoint.is_dir():
        raise FileNotFoundError(
            f'"{checkpoint}" is a folder, not the checkpoint of a config. If a model '
            'was saved there, give the folder alone.'
        )
    if not checkpoint.is_file():
        raise FileNotFoundError(f'There is no checkpoint at {checkpoint}.')


def _check_kind(name: str | None, kind: type[nn.Module], file: str | None) -> None:
    found = _registered(MODELS, name)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ValueError(
            f'{file or "The config"}: its model, or the student in it, has to be a '
            f'{kind.__name__}, got {name!r}.'
        )


def _registered(registry: Registry, name: str | None) -> type | None:
    """What a name of a config means in its scope, which may be another package's."""
    with registry.switch_scope_and_registry(None) as current:
        return current.get(name) if name else None


def _config_in(work_dir: Path) -> Path | None:
    """The newest config in a folder, None if there is none."""
    configs = work_dir.glob('*.py')
    return max(configs, key=lambda path: path.stat().st_mtime, default=None)


def _metainfo(config: Config) -> dict:
    """Names of the classes, if the config's data set has them without its files."""
    for name in LOADERS:
        dataset = (config.get(name) or {}).get('dataset') or {}
        kind = _registered(DATASETS, dataset.get('type'))
        metainfo = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
        if metainfo:
            return metainfo
    return {}


def _cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    if isinstance(model, PreTrainedModel):
        return cast_parameters(model, dtype)
    return model.to(dtype)
