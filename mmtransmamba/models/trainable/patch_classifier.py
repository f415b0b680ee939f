"""A vision tower trained to classify the content of each of its patches."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmtransmamba.models.folders.assemble_llava import FEATURE_LAYER
from mmtransmamba.models.folders.companions import Companions
from mmtransmamba.models.trainable.origin import ENCODER, Origin
from mmtransmamba.registry import MODELS


@MODELS.register_module()
class PatchClassifier(BaseModel):
    """Trains a small CLIP vision tower where no pre-trained one exists, or a hybrid.

    A linear layer classifies every patch from the features that a LLaVA uses, those of
    the second-to-last layer. Only the tower is kept:
    :class:`~mmtransmamba.engine.SaveStudentHook` saves it without the linear layer.

    Args:
        num_classes: Number of classes.
        config: Fields of a ``CLIPVisionConfig``, for a tower with random weights.
        processor: Folder whose processor is saved with the tower.
        path: Alternatively to ``config``, the folder of a CLIP vision tower, possibly a
            hybrid of this package.
        convert: Arguments of :func:`~mmtransmamba.transfer.convert.convert` except the
            teacher, which is the tower of ``path``.
        data_preprocessor: As in mmengine's ``BaseModel``.

    Raises:
        CheckpointError: The folder's weights do not fit its config.
        FileNotFoundError: The folder does not exist.
        ValueError: Not exactly one of config and path is given, ``convert`` has no
            path, or the folder's model is not a vision tower of CLIP.
    """

    def __init__(
        self,
        num_classes: int,
        config: dict[str, Any] | None = None,
        processor: str | None = None,
        path: str | None = None,
        convert: dict[str, Any] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        super().__init__(data_preprocessor)
        self.tower = _tower(config, path, convert)
        self.classifier = nn.Linear(self.tower.config.hidden_size, num_classes)
        self.companions = Companions(processor)
        self.stage = 'patches'

    def init_weights(self) -> None:
        """Do nothing: transformers has already initialised the weights."""

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor]:
        """Logits ``[B, N, C]`` of the patches, or the loss.

        Args:
            pixel_values: ``[B, 3, H, W]``.
            labels: ``[B, N]``.
            mode: ``'tensor'``, or ``'loss'``, which also logs the share of correctly
                classified patches in percent.
        """
        output = self.tower(pixel_values, output_hidden_states=True)
        logits = self.classifier(output.hidden_states[FEATURE_LAYER][:, 1:])
        if mode == 'loss':
            right = (logits.argmax(-1) == labels).float().mean()
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
            return dict(loss=loss, accuracy=100 * right)
        return logits


def _tower(
    config: dict[str, Any] | None, path: str | None, convert: dict[str, Any] | None
) -> nn.Module:
    """A new tower, or that of a folder, converted if requested."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    if config is not None and convert is not None:
        raise ValueError(
            'PatchClassifier: convert needs a trained tower; give path in place of '
            'config.'
        )
    if config is not None and path is None:
        return CLIPVisionModel(CLIPVisionConfig(**config))
    origin = Origin(
        'PatchClassifier', ENCODER, path=path, config=config, convert=convert
    )
    tower, _ = origin.build()
    kind = tower.config.model_type
    if not kind.endswith('clip_vision_model') or type(tower).__name__.endswith(
        'Projection'
    ):
        raise ValueError(
            f'PatchClassifier: path={path!r} is a {type(tower).__name__}; accepted is '
            'a vision tower of CLIP without its projection, such as CLIPVisionModel.'
        )
    return tower
