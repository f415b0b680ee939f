"""Predictions of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmpretrain.apis import ImageClassificationInferencer
from torch import nn

from mmtransmamba.apis.loading import load


@dataclass(frozen=True)
class Prediction:
    """Prediction of a classifier for an image.

    Attributes:
        label: Index of the class with the highest score.
        name: Name of this class, None if the model does not know its class names.
        score: Its probability.
        scores: Probabilities ``[num_classes]`` of all classes, float32.
    """

    label: int
    name: str | None
    score: float
    scores: np.ndarray


def infer(
    model: nn.Module | str | Path,
    inputs: str | Path | np.ndarray | Sequence[str | Path | np.ndarray],
    batch_size: int = 32,
) -> list[Prediction]:
    """Classify images.

    Args:
        model: A classifier from :func:`~mmtransmamba.apis.loading.load`, or an argument
            of that function: the folder of a training run, or a checkpoint in it.
        inputs: An image or a list of images: files, or arrays ``[H, W, 3]`` of uint8 in
            BGR order, as read by OpenCV. They pass through the test pipeline of the
            model's config.
        batch_size: Images in one forward pass.

    Returns:
        One :class:`Prediction` per image.

    Raises:
        FileNotFoundError: An image does not exist.
        TypeError: The model is not an image classifier.
        ValueError: The model was not loaded with its config.
    """
    if not isinstance(model, nn.Module):
        model = load(model)
    if not hasattr(model, 'head') or not hasattr(model, 'extract_feat'):
        raise TypeError(f'{type(model).__name__} is not an image classifier')
    if not hasattr(model, '_config'):
        raise ValueError(
            'the model does not carry the config with its test pipeline; load it with '
            'mmtransmamba.load'
        )
    if isinstance(inputs, str | Path | np.ndarray):
        inputs = [inputs]
    images = [str(item) if isinstance(item, Path) else item for item in inputs]
    for image in images:
        if isinstance(image, str) and '://' not in image and not Path(image).is_file():
            raise FileNotFoundError(f'there is no image "{image}"')
    inferencer = ImageClassificationInferencer(model)
    found = inferencer(images, batch_size=batch_size)
    return [
        Prediction(
            label=int(one['pred_label']),
            name=one.get('pred_class'),
            score=float(one['pred_score']),
            scores=np.asarray(one['pred_scores'], dtype=np.float32),
        )
        for one in found
    ]
