"""Teachers from transformers."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders.loading import check_folder_weights
from mmtransmamba.models.teachers.base import BaseTeacher
from mmtransmamba.models.teachers.layout import find_layout, interpolation, native_size
from mmtransmamba.models.teachers.loading import (
    RANDOM,
    accept_random,
    load_teacher_checkpoint,
)
from mmtransmamba.registry import MODELS

# Of BEiT and Data2Vec, the pooler's norm, which their classifier reads.
FINAL_NORMS = ('pooler.layernorm', 'layernorm', 'post_layernorm', 'norm', 'model.norm')


def _classifier_class(config: Any, has_labels: bool) -> type[nn.Module] | None:
    """The classifier that a config names; None for a model without classifier."""
    import transformers

    mapping = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    for name in getattr(config, 'architectures', None) or ():
        if 'ForImageClassification' in name:
            found = mapping[type(config)] if type(config) in mapping else ()
            registered = found if isinstance(found, tuple) else (found,)
            known = {each.__name__: each for each in registered}
            # The converted encoders of this package are registered only.
            return known.get(name) or getattr(transformers, name)
    if not has_labels:
        return None
    if type(config) not in mapping:
        raise ValueError(
            'TransformersTeacher: transformers has no image classifier for '
            f'model_type={config.model_type!r}; drop num_labels from model.'
        )
    found = mapping[type(config)]
    return found[0] if isinstance(found, tuple) else found


def _from_config(model: dict[str, Any]) -> nn.Module:
    import transformers

    arguments = dict(model)
    model_type = arguments.pop('model_type', None)
    if model_type not in transformers.CONFIG_MAPPING:
        raise ValueError(
            f"TransformersTeacher: model['model_type']={model_type!r} is not a model "
            "type of transformers, such as 'vit', 'deit', 'swin', 'dinov2' or "
            "'clip_vision_model'."
        )
    config = transformers.AutoConfig.for_model(model_type, **arguments)
    classifier = _classifier_class(config, 'num_labels' in arguments)
    if classifier is None:
        return transformers.AutoModel.from_config(config)
    return classifier(config)


def _from_pretrained(model: str) -> nn.Module:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(model)
        classifier = _classifier_class(config, has_labels=False)
        loaded, info = (classifier or transformers.AutoModel).from_pretrained(
            model, output_loading_info=True
        )
    except OSError as error:
        raise FileNotFoundError(
            f'TransformersTeacher: model={model!r} is not a folder with a model, and '
            f'cannot be fetched from the hub: {error}'
        ) from error
    # The pooler is not used, so files without one are complete.
    missing = [k for k in info['missing_keys'] if not k.startswith('pooler.')]
    if missing or info['mismatched_keys']:
        raise CheckpointError(
            f'TransformersTeacher: {model} lacks weights of {type(loaded).__name__}: '
            f'{len(missing)} missing, such as {missing[:5]}; '
            f'{len(info["mismatched_keys"])} of another shape, such as '
            f'{list(info["mismatched_keys"])[:3]}.'
        )
    if os.path.isdir(model):
        check_folder_weights(model, loaded)
    if info['unexpected_keys']:
        unused = sorted(info['unexpected_keys'])
        print_log(
            f'TransformersTeacher: {len(unused)} weights of {model} are unused by '
            f'{type(loaded).__name__}, such as {unused[:5]}.',
            'current',
        )
    return loaded


def _normalisation(model: str) -> tuple[list[float], list[float]] | None:
    """Mean and std on the scale 0..255 of the image processor saved with a model."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        config, _ = ImageProcessingMixin.get_image_processor_dict(model)
    except OSError:
        return None
    scale = config.get('rescale_factor', 1 / 255) if config.get('do_rescale', 1) else 1
    if not config.get('do_normalize', True):
        return [0.0] * 3, [1 / scale] * 3
    if 'image_mean' not in config or 'image_std' not in config:
        return None
    mean, std = config['image_mean'], config['image_std']
    return [m / scale for m in mean], [s / scale for s in std]


def _vision_tower(model: nn.Module) -> nn.Module:
    """The part of a model that turns images into tokens."""
    base = model.base_model
    if not any(isinstance(module, nn.Conv2d) for module in base.modules()):
        base = model  # in DINOv3, the base model is the encoder without embeddings
    return getattr(base, 'vision_model', base)


def _class_names(model: nn.Module) -> list[str] | None:
    """The class names in a classifier's config, unless they are only numbered."""
    names = getattr(model.config, 'id2label', None) or {}
    numbered = all(name == f'LABEL_{i}' for i, name in names.items())
    return None if numbered else [names[i] for i in sorted(names)]


@MODELS.register_module()
class TransformersTeacher(BaseTeacher):
    """A vision model of transformers: ViT, DeiT, Swin, DINOv2, CLIP's vision tower...

    Args:
        model: A folder written by ``save_pretrained``, a name on the hub, or the
            dict of a config with ``model_type`` for a model without weights. A
            config that names an image classifier (``architectures``), or a dict
            with ``num_labels``, provides logits. For a model with text, such as CLIP,
            only the vision tower is kept.
        checkpoint: File to load into a model given as dict, or ``'random'`` for random
            weights.
        layers: Dotted names of the vision tower's submodules whose outputs are the
            layers; None finds the blocks.
        mean: Per channel, 0..255; by default that of the image processor saved
            with the model.
        std: As ``mean``.
        input_size: See :class:`BaseTeacher`.
        dtype: See :class:`BaseTeacher`.
        class_order: See :class:`BaseTeacher`.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: Neither a folder nor a hub model of this name exists.
        ValueError: The model cannot be read, has no weights, or specifies no
            normalisation and none is given.
        CheckpointError: Weights are missing, integers, NaN or infinite.
    """

    def __init__(
        self,
        model: str | os.PathLike | dict[str, Any],
        checkpoint: str | None = None,
        layers: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_size: int | Sequence[int] | None = None,
        dtype: str = 'float32',
        class_order: str | Sequence[int] | None = None,
    ) -> None:
        own = None
        if isinstance(model, dict):
            built = _from_config(model)
            if checkpoint in (None, RANDOM):
                accept_random('TransformersTeacher', checkpoint)
        elif checkpoint is not None:
            raise ValueError(
                f'TransformersTeacher: model={str(model)!r} brings its own weights; '
                'a checkpoint goes with a config dict.'
            )
        else:
            built = _from_pretrained(str(model))
            own = _normalisation(str(model))
        if own is None and (mean is None or std is None):
            raise ValueError(
                'TransformersTeacher: no image processor config states the '
                "model's normalisation. Give mean=[...] and std=[...] on the scale "
                '0..255.'
            )
        root = _vision_tower(built)
        has_classifier = 'ForImageClassification' in type(built).__name__
        kept = built if has_classifier else root
        if checkpoint not in (None, RANDOM):
            load_teacher_checkpoint(kept, checkpoint)
        # Some models resample their position embedding on request only.
        self._resamples = (
            'interpolate_pos_encoding' in inspect.signature(root.forward).parameters
        )
        layout = find_layout(root, layers, FINAL_NORMS)
        if layout.final_norm is None:
            # Its classifier pools, and has the norm or convolution before that.
            layout = replace(layout, head=getattr(kept, 'classifier', None))
        super().__init__(
            model=kept,
            root=root,
            layout=layout,
            mean=own[0] if mean is None else mean,
            std=own[1] if std is None else std,
            native_size=native_size(root.config),
            input_size=input_size,
            dtype=dtype,
            class_order=class_order,
            class_names=_class_names(built),
        )

    def run(self, images: Tensor) -> Tensor | None:
        options = {}
        if self._resamples:
            options = interpolation(self.native_size, tuple(images.shape[-2:]))
        return getattr(self.model(pixel_values=images, **options), 'logits', None)
