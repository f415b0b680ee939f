"""A transformers image classifier for mmengine's Runner, as a student or alone."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from mmtransmamba.models.taps import LayerTap
from mmtransmamba.models.teachers.layout import (
    find_layout,
    interpolation,
    native_size,
    pooled_feature,
    recorded_outputs,
    split_tokens,
)
from mmtransmamba.models.trainable.base import exempt_from_decay
from mmtransmamba.models.trainable.naming import use_names_of
from mmtransmamba.models.trainable.origin import ENCODER, Origin
from mmtransmamba.models.trainable.stages import (
    STAGES,
    check_history,
    freeze_all_but,
    trained_in,
)
from mmtransmamba.models.vision import EncoderMixer
from mmtransmamba.registry import MODELS

FINAL_NORMS = ('layernorm', 'post_layernorm')


class LogitsHead(ClsHead):
    """Head for logits that the encoder has already computed.

    Args:
        classes: The encoder's number of each class of the data set.
        loss, topk: See mmpretrain's ``ClsHead``.
    """

    def __init__(
        self, classes: Sequence[int], loss: dict, topk: Sequence[int] = (1,)
    ) -> None:
        super().__init__(loss=loss, topk=tuple(topk))
        self.classes = list(classes)
        self.num_classes = len(self.classes)

    def pre_logits(self, feats: tuple[Tensor, Tensor]) -> Tensor:
        """The final feature ``[B, C]``."""
        return feats[0]

    def forward(self, feats: tuple[Tensor, Tensor]) -> Tensor:
        """Logits ``[B, num_classes]`` of the data set's classes."""
        return feats[1][:, self.classes]


@MODELS.register_module()
class EncoderClassifier(BaseModel):
    """A ViT, DeiT or DINOv2 with a classifier, possibly a hybrid of this package.

    It has a layer tap after every block and a direction tap in every mixer, so it is a
    student for :class:`~mmtransmamba.transfer.MultiDirectionDistiller`. Its state dict
    has the names of the transformers model.

    Args:
        path: Folder of a transformers image classifier.
        config: Alternatively, fields of a transformers config, including
            ``model_type``, for a model with random weights.
        seed: Seed of the random weights.
        convert: Arguments of :func:`~mmtransmamba.transfer.convert.convert` except the
            teacher, which is the model of ``path`` or ``config``.
        classes: The model's number of each class of the data set, for a model with
            additional classes or another order; None for all in their order.
        stage: Stage in :data:`~mmtransmamba.models.trainable.stages.STAGES`, which
            determines what is trained and where it may start; None trains everything.
        trains: Groups of parameters to train instead of the stage's.
        requires: Last step that is accepted instead of the stage's.
        loss: Config of the task's loss.
        data_preprocessor: As in mmpretrain's ``ImageClassifier``.

    Raises:
        FileNotFoundError: The folder does not exist.
        CheckpointError: The folder's weights do not fit its config.
        StageError: The stage does not exist, or cannot start from this model.
        ValueError: The model has no classifier, or not all of the classes.
    """

    def __init__(
        self,
        path: str | None = None,
        config: dict[str, Any] | None = None,
        seed: int = 0,
        convert: dict[str, Any] | None = None,
        classes: Sequence[int] | None = None,
        stage: str | None = None,
        trains: Sequence[str] | None = None,
        requires: str | Sequence[str] | None = None,
        loss: dict[str, Any] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        super().__init__(_preprocessor(data_preprocessor))
        origin = Origin(
            'EncoderClassifier',
            ENCODER,
            path=path,
            config=config,
            seed=seed,
            convert=convert,
        )
        self.encoder, self.companions = origin.build()
        labels = self._check_classes(classes)
        self.stage = stage
        if stage is None and (trains is not None or requires is not None):
            raise ValueError(
                'EncoderClassifier: trains and requires belong to a stage; give one of '
                f'stage={", ".join(n for n in STAGES if n.startswith("vision_"))}.'
            )
        if stage is not None:
            check_history(self.encoder, stage, requires)
            groups = trained_in(stage) if trains is None else trains
            print_log(f'\n{freeze_all_but(self.encoder, groups)}', logger='current')
        root = self.encoder.base_model
        self._layout = find_layout(root, None, FINAL_NORMS)
        width = self.encoder.config.hidden_size
        self.layer_taps = nn.ModuleList(LayerTap(width) for _ in self._layout.blocks)
        self.head = LogitsHead(labels, loss or dict(type='mmpretrain.CrossEntropyLoss'))
        # Some models resample their position embedding on request only.
        parameters = inspect.signature(type(self.encoder).forward).parameters
        self._resamples = 'interpolate_pos_encoding' in parameters
        use_names_of(self, 'encoder')

    def _check_classes(self, classes: Sequence[int] | None) -> list[int]:
        name = type(self.encoder).__name__
        if 'ForImageClassification' not in name:
            raise ValueError(
                f'EncoderClassifier: the model is a {name}, which has no classifier; '
                'accepted are models ...ForImageClassification.'
            )
        count = self.encoder.config.num_labels
        labels = list(range(count) if classes is None else classes)
        wrong = [i for i in labels if not isinstance(i, int) or not 0 <= i < count]
        if wrong or not labels or len(set(labels)) < len(labels):
            raise ValueError(
                'EncoderClassifier: classes must be different integers from 0 to '
                f'{count - 1}, one for each class; got {labels[:8]}.'
            )
        return labels

    def init_weights(self) -> None:
        """Do nothing: the model already has its weights."""

    def no_weight_decay(self) -> set[str]:
        """See :func:`~mmtransmamba.models.trainable.base.exempt_from_decay`."""
        return exempt_from_decay(self)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth for layer-wise learning rate decay: 0 for embeddings, the last for the
        final norm and the head."""
        name = param_name.removeprefix(prefix).removeprefix('encoder.')
        last = len(self._layout.blocks) + 1
        found = re.search(r'\blayers?\.(\d+)\.', name)
        if found:
            return int(found[1]) + 1, last + 1
        return (0 if '.embeddings.' in name else last), last + 1

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Final feature ``[B, C]`` and logits of all of the model's classes.

        Args:
            inputs: Normalised images ``[B, 3, H, W]``.
        """
        conv = self._layout.patch_conv
        grid = tuple(
            (size - kernel) // stride + 1
            for size, kernel, stride in zip(
                inputs.shape[-2:], conv.kernel_size, conv.stride, strict=True
            )
        )
        for module in self.encoder.modules():
            if isinstance(module, EncoderMixer):
                module.grid = grid
        options = {}
        if self._resamples:
            native = native_size(self.encoder.config)
            options = interpolation(native, tuple(inputs.shape[-2:]))
        with recorded_outputs(self._layout, len(inputs)) as outputs:
            logits = self.encoder(inputs, **options).logits
        features = [split_tokens(outputs[b], grid, self._layout) for b in self._blocks]
        for tap, feature in zip(self.layer_taps, features, strict=True):
            if tap.listener is not None:
                tap.listener(feature)
        final = outputs[self._layout.final_norm]
        return pooled_feature(final, features[-1], self._layout), logits

    @property
    def _blocks(self) -> tuple[nn.Module, ...]:
        return self._layout.blocks

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list:
        """Logits ``[B, num_classes]``, the task's loss, or predictions.

        Args:
            inputs: Normalised images ``[B, 3, H, W]``.
            data_samples: mmpretrain's data samples.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.
        """
        features = self.extract_feat(inputs)
        if mode == 'loss':
            return self.head.loss(features, data_samples)
        if mode == 'predict':
            return self.head.predict(features, data_samples)
        return self.head(features)


def _preprocessor(given: dict | nn.Module | None) -> dict | nn.Module | None:
    """mmpretrain's preprocessor of images, if no other one is named."""
    if isinstance(given, dict):
        return {'type': 'mmpretrain.ClsDataPreprocessor', **given}
    return given
