"""Predictions of a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine import fileio
from mmpretrain.apis import ImageClassificationInferencer
from PIL import Image
from torch import nn
from torch.nn.modules.conv import _ConvNd

from mmtransmamba.apis.loading import load
from mmtransmamba.utils.evaluation_mode import evaluating
from mmtransmamba.utils.images import open_image, to_rgb

Picture = str | Path | bytes | Image.Image | np.ndarray
"""An image, see :func:`infer`."""


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
    inputs: Picture | Sequence[Picture],
    batch_size: int = 32,
) -> list[Prediction]:
    """Classify images.

    Args:
        model: A classifier from :func:`~mmtransmamba.apis.loading.load`, or an argument
            of that function: the folder of a training run, or a checkpoint in it.
        inputs: An image or a list of images: files, URLs, contents of files, PIL
            images, or arrays ``[H, W, 3]`` of uint8 in BGR order, as read by OpenCV.
            All but arrays become 8-bit RGB as described in
            :func:`~mmtransmamba.utils.images.to_rgb`, with the stored colour where
            they are transparent, as in the pipelines of training, then BGR, or grey if
            the model has one input channel. The result passes through the test
            pipeline of the model's config.
        batch_size: Images in one forward pass, at least 1.

    Returns:
        One :class:`Prediction` per image.

    Raises:
        FileNotFoundError: An image does not exist.
        TypeError: The model is not an image classifier, or an input not an image.
        ValueError: The model was not loaded with its config, an image cannot be
            decoded, or the images of a batch differ in size after the pipeline.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(f'batch_size={batch_size!r} must be an integer, 1 at least')
    if not isinstance(model, nn.Module):
        model = load(model)
    if not hasattr(model, 'head') or not hasattr(model, 'extract_feat'):
        raise TypeError(f'{type(model).__name__} is not an image classifier')
    if not hasattr(model, '_config'):
        raise ValueError(
            'the model does not carry the config with its test pipeline; load it with '
            'mmtransmamba.load'
        )
    inputs = [inputs] if isinstance(inputs, Picture) else list(inputs)
    for one in inputs:
        _check(one)
    with evaluating(model):
        found = _Inferencer(model)(inputs, batch_size=batch_size)
    return [
        Prediction(
            label=int(one['pred_label']),
            name=one.get('pred_class'),
            score=float(one['pred_score']),
            scores=np.asarray(one['pred_scores'], dtype=np.float32),
        )
        for one in found
    ]


def _check(one: Picture) -> None:
    if not isinstance(one, Picture):
        raise TypeError(
            'an image must be a file, its content, a PIL image or an array, not '
            f'{one!r:.80}'
        )
    if _is_file(one) and not Path(one).is_file():
        raise FileNotFoundError(f'there is no image "{one}"')


def _is_file(one: Picture) -> bool:
    return isinstance(one, str | Path) and '://' not in str(one)


class _Inferencer(ImageClassificationInferencer):
    """mmpretrain's, with this package's reading of images."""

    def preprocess(self, inputs: Sequence[Picture], batch_size: int = 1) -> Iterator:
        modules = self.model.modules()
        first = next((m for m in modules if isinstance(m, _ConvNd)), None)
        is_grey = first is not None and first.in_channels == 1
        try:
            yield from super().preprocess(
                (_as_array(one, is_grey) for one in inputs), batch_size
            )
        except RuntimeError as error:
            if 'equal size' not in str(error):
                raise
            raise ValueError(
                'the test pipeline does not resize the images to one size, and a batch '
                f'has several: {error}. Give batch_size=1'
            ) from error


def _as_array(one: Picture, is_grey: bool) -> np.ndarray:
    """An image as OpenCV reads it."""
    if isinstance(one, np.ndarray):
        return one
    if isinstance(one, Image.Image):
        image = to_rgb(one, on_white=False)
    elif isinstance(one, bytes) or _is_file(one):
        image = open_image(one, on_white=False)
    else:
        image = open_image(fileio.get(one), one, on_white=False)
    if is_grey:
        return np.array(image.convert('L'))[..., None]
    return np.array(image)[..., ::-1].copy()
