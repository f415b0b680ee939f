"""Teachers from mmpretrain."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmtransmamba.models.teachers.base import BaseTeacher
from mmtransmamba.models.teachers.layout import find_layout
from mmtransmamba.models.teachers.loading import (
    RANDOM,
    accept_random,
    class_names_of,
    load_teacher_checkpoint,
)
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.log_levels import at_level


def _build(model: str | dict[str, Any]) -> nn.Module:
    import mmpretrain.models
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

    if isinstance(model, str):
        if not model.endswith('.py') and model not in mmpretrain.list_models():
            close = get_close_matches(model, mmpretrain.list_models(), 8, cutoff=0.4)
            raise ValueError(
                f'MMPretrainTeacher: model={model!r} is neither a model of '
                'mmpretrain.list_models() nor a .py config. Similar names: '
                f'{", ".join(close) or "none"}'
            )
        return mmpretrain.get_model(model, pretrained=False)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        # mmpretrain completes the config that it receives.
        return MMPRETRAIN_MODELS.build(copy.deepcopy(model))


def _is_pretrained(model: nn.Module) -> bool:
    """Whether the model's own ``init_cfg`` loads weights."""
    for part in (model, getattr(model, 'backbone', None)):
        init_cfg = getattr(part, 'init_cfg', None)
        for cfg in init_cfg if isinstance(init_cfg, list) else [init_cfg]:
            if cfg and cfg.get('type') == 'Pretrained':
                return True
    return False


def _init_quietly(model: nn.Module) -> None:
    """Initialise without mmengine's log line per parameter."""
    try:
        with at_level(logging.WARNING, MMLogger.get_current_instance()):
            model.init_weights()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            "MMPretrainTeacher: the model's init_cfg loads a file that does not exist "
            f'({error}). Give checkpoint=FILE.'
        ) from error


def _final_norms(backbone: nn.Module) -> list[str]:
    """Possible names of a final norm in mmpretrain, the last one applied first."""
    names = [f'norm{i}' for i in reversed(getattr(backbone, 'out_indices', ()))]
    if getattr(backbone, 'out_type', None) == 'avg_featmap':
        names.append('ln2')
    return [*names, 'ln1', 'norm']


def _classifier(model: nn.Module) -> nn.Module | None:
    """The last linear layer of a model's head, None if there is none."""
    modules = getattr(model, 'head', None) or nn.Module()
    linear = [m for m in modules.modules() if isinstance(m, nn.Linear)]
    return linear[-1] if linear else None


def _normalisation(model: nn.Module) -> tuple[list[float], list[float]] | None:
    preprocessor = getattr(model, 'data_preprocessor', None)
    if getattr(preprocessor, 'mean', None) is None:
        return None
    return preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist()


@MODELS.register_module()
class MMPretrainTeacher(BaseTeacher):
    """A classifier or backbone of mmpretrain.

    Every plain or windowed Transformer whose blocks are in ``layers`` or ``stages``
    is supported directly (VisionTransformer, DistilledVisionTransformer, BEiT,
    SwinTransformer, ...); for others, name the modules to read with ``layers``.

    Args:
        model: Name of a model in ``mmpretrain.list_models()``, path of a ``.py``
            config, or a config dict of an ``ImageClassifier`` or a backbone.
        checkpoint: File to load. Without it the model has to load its weights itself
            (``init_cfg`` with ``Pretrained``); ``'random'`` selects random weights.
        layers: Dotted names of the backbone's submodules whose outputs are the
            layers; None finds the blocks.
        mean: Per channel, 0..255; by default that of the model's
            ``data_preprocessor``. Channels are assumed to be in RGB order.
        std: As ``mean``.
        input_size: See :class:`BaseTeacher`.
        dtype: See :class:`BaseTeacher`.
        class_order: See :class:`BaseTeacher`. The names of the classes are those in
            ``meta['dataset_meta']`` of the checkpoint.

    Raises:
        ValueError: The model is unknown, cannot be read, or specifies no
            normalisation and none is given.
        CheckpointError: The checkpoint does not fit.
    """

    def __init__(
        self,
        model: str | dict[str, Any],
        checkpoint: str | None = None,
        layers: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_size: int | Sequence[int] | None = None,
        dtype: str = 'float32',
        class_order: str | Sequence[int] | None = None,
    ) -> None:
        built = _build(model)
        names = None
        if checkpoint in (None, RANDOM):
            _init_quietly(built)
            if not _is_pretrained(built):
                accept_random('MMPretrainTeacher', checkpoint)
        else:
            load_teacher_checkpoint(built, checkpoint)
            head = getattr(built, 'head', None)
            names = class_names_of(checkpoint, getattr(head, 'num_classes', None))
        own = _normalisation(built)
        if own is None and (mean is None or std is None):
            raise ValueError(
                'MMPretrainTeacher: the model has no data_preprocessor that states '
                'its normalisation. Give mean=[...] and std=[...] on the scale '
                '0..255, or put data_preprocessor=dict(mean=..., std=...) into model.'
            )
        backbone = getattr(built, 'backbone', built)
        size = getattr(backbone, 'img_size', None)
        if size is None and hasattr(backbone, 'patch_embed'):
            size = getattr(backbone.patch_embed, 'init_input_size', None)
        size = size or 224
        layout = find_layout(backbone, layers, _final_norms(backbone))
        if layout.final_norm is None:
            # What is between the last block and the head belongs to the feature.
            layout = replace(layout, head=_classifier(built))
        super().__init__(
            model=built,
            root=backbone,
            layout=layout,
            mean=own[0] if mean is None else mean,
            std=own[1] if std is None else std,
            native_size=(size, size) if isinstance(size, int) else tuple(size),
            input_size=input_size,
            dtype=dtype,
            class_order=class_order,
            class_names=names,
        )

    def run(self, images: Tensor) -> Tensor | None:
        if getattr(self.model, 'head', None) is not None:
            return self.model(images, mode='tensor')
        getattr(self.model, 'backbone', self.model)(images)
        return None
