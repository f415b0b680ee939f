"""Teachers from timm."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from mmtransmamba.models.teachers.base import BaseTeacher
from mmtransmamba.models.teachers.layout import find_layout
from mmtransmamba.models.teachers.loading import (
    RANDOM,
    accept_random,
    load_teacher_checkpoint,
)
from mmtransmamba.registry import MODELS

FINAL_NORMS = ('fc_norm', 'norm', 'head.norm')


def _build(model: str | dict[str, Any], pretrained: bool) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            'TimmTeacher needs the package timm: pip install timm'
        ) from error
    arguments = {'model_name': model} if isinstance(model, str) else dict(model)
    name = arguments.pop('model_name', None)
    if name is None:
        raise ValueError(
            f"TimmTeacher: model={model!r} must be a name or a dict with 'model_name'."
        )
    if not timm.is_model(name):
        close = ', '.join(get_close_matches(name, timm.list_models(), 8, cutoff=0.4))
        raise ValueError(
            f'TimmTeacher: timm has no model {name!r}. Similar names: {close or "none"}'
        )
    return timm.create_model(name, pretrained=pretrained, **arguments)


def _layers(model: nn.Module) -> list[str] | None:
    """Modules listed in timm's own feature table, for models without blocks.

    Convolutional models store their stages under many names. Earlier versions of timm
    have no table for CoaT.
    """
    if any(hasattr(model, name) for name in ('blocks', 'layers', 'stages')):
        return None
    table = getattr(model, 'feature_info', None)
    if table:
        return [entry['module'] for entry in table]
    serial = [n for n, _ in model.named_children() if n.startswith('serial_blocks')]
    return serial or None


def _classifier(model: nn.Module) -> nn.Module | None:
    """The last module of a model's head; of a distilled one, that of the labels."""
    head = model.get_classifier()
    return head[0] if isinstance(head, (tuple, list)) else head


def _class_names(model: nn.Module) -> list[str] | None:
    """The class names in a model's ``pretrained_cfg``, None if it has none."""
    names = (getattr(model, 'pretrained_cfg', None) or {}).get('label_names')
    return list(names) if names else None


@MODELS.register_module()
class TimmTeacher(BaseTeacher):
    """Any model of timm: ViT, DeiT, BEiT, EVA, Swin, ConvNeXt, ...

    Args:
        model: Name of a model, or a dict of the arguments of ``timm.create_model``
            (``model_name``, ``num_classes``, ``img_size``, ``dynamic_img_size``...).
            With ``num_classes=0`` there are no logits.
        pretrained: Load timm's weights, from its cache or the network.
        checkpoint: File to load, or ``'random'`` for random weights.
        layers: Dotted names of the submodules whose outputs are the layers; None
            uses the blocks, or timm's ``feature_info`` in a model without blocks.
        mean: Per channel, 0..255; by default that of timm's ``pretrained_cfg``.
        std: As ``mean``.
        input_size: See :class:`BaseTeacher`.
        dtype: See :class:`BaseTeacher`.
        class_order: See :class:`BaseTeacher`.

    Raises:
        ImportError: timm is not installed.
        ValueError: The model is unknown or cannot be read, or not exactly one of
            ``pretrained`` and ``checkpoint`` is given.
        CheckpointError: The checkpoint does not fit.
    """

    def __init__(
        self,
        model: str | dict[str, Any],
        pretrained: bool = False,
        checkpoint: str | None = None,
        layers: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_size: int | Sequence[int] | None = None,
        dtype: str = 'float32',
        class_order: str | Sequence[int] | None = None,
    ) -> None:
        if pretrained and checkpoint is not None:
            raise ValueError(
                'TimmTeacher: give either pretrained=True or a checkpoint, not both.'
            )
        built = _build(model, pretrained)
        if checkpoint not in (None, RANDOM):
            load_teacher_checkpoint(built, checkpoint)
        elif not pretrained:
            accept_random('TimmTeacher', checkpoint)
        cfg = built.pretrained_cfg
        size = getattr(getattr(built, 'patch_embed', None), 'img_size', None)
        if size is None and not isinstance(model, str):
            size = model.get('img_size')
        layout = find_layout(
            built,
            _layers(built) if layers is None else layers,
            FINAL_NORMS,
            channels_last=getattr(built, 'output_fmt', None) == 'NHWC',
            head=_classifier(built),
        )
        super().__init__(
            model=built,
            root=built,
            layout=layout,
            mean=[255 * m for m in cfg['mean']] if mean is None else mean,
            std=[255 * s for s in cfg['std']] if std is None else std,
            native_size=(size, size)
            if isinstance(size, int)
            else tuple(size or cfg['input_size'][-2:]),
            input_size=input_size,
            dtype=dtype,
            class_order=class_order,
            class_names=_class_names(built),
        )

    def run(self, images: Tensor) -> Tensor | None:
        # Without classes the head still pools, and applies a norm that follows.
        output = self.model(images)
        return output if self.model.num_classes else None
