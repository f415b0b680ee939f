"""A vision tower trained to classify the content of each of its patches."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmtransmamba.models.folders.assemble_llava import FEATURE_LAYER
from mmtransmamba.models.folders.companions import Companions
from mmtransmamba.registry import MODELS


@MODELS.register_module()
class PatchClassifier(BaseModel):
    """Trains a small CLIP vision tower where no pre-trained one exists.

    A linear layer classifies every patch from the features that a LLaVA uses, those of
    the second-to-last layer. Only the tower is kept:
    :class:`~mmtransmamba.engine.SaveStudentHook` saves it without the linear layer.

    Args:
        config: Fields of a ``CLIPVisionConfig``.
        num_classes: Number of classes.
        processor: Folder whose processor is saved with the tower.
        data_preprocessor: As in mmengine's ``BaseModel``.
    """

    def __init__(
        self,
        config: dict[str, Any],
        num_classes: int,
        processor: str | None = None,
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        super().__init__(data_preprocessor)
        self.tower = CLIPVisionModel(CLIPVisionConfig(**config))
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
