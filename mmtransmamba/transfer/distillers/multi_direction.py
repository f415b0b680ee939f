"""The second stage of the transfer: adaptive multi-directional distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmtransmamba.compat import (
    accumulated_batches,
    is_fully_sharded,
    normalizes,
    swaps_channels,
)
from mmtransmamba.models.student_kinds import kind_of
from mmtransmamba.models.teachers import BaseTeacher
from mmtransmamba.models.trainable.step_average import (
    BATCHES,
    IMAGES,
    Share,
    StepAverage,
    times,
    zero_of,
)
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.alignment import TeacherTokens, match_layers
from mmtransmamba.transfer.distillers.base import Distiller, scaled_losses
from mmtransmamba.transfer.tap_recorder import TapRecorder
from mmtransmamba.transfer.terms.base import (
    DistillBatch,
    Term,
    TransferPair,
    check_weight,
)
from mmtransmamba.transfer.terms.language import LanguageTerm


@MODELS.register_module()
class MultiDirectionDistiller(Distiller):
    r"""Trains a student with a frozen teacher (TransMamba Eq. 4 to 12).

    .. math:: L = \alpha L_{task} + (1 - \alpha) \sum_j L_j

    with a sum over named terms: logits, final feature, layers, directions. A config
    enables each of them, and None disables it, so a child config can change one term of
    its base.

    In the state dict, the student's tensors have the same names as in the student
    alone, and the learned aligners start with ``distiller.``; the teacher is not
    included. So a checkpoint of the distiller is a checkpoint of the student.

    Args:
        student: mmpretrain classifier, mmseg segmentor, mmdet detector or
            :class:`~mmtransmamba.models.retrieval.VideoMambaRetriever`, or its
            config, whose backbone has taps (:mod:`mmtransmamba.models.taps`).
            Segmentors and detectors have no image-level output, so logits and feature
            terms do not apply, only those of layers and directions. A retriever's
            teacher is a :class:`~mmtransmamba.models.retrieval.CLIP4ClipTeacher`.
        teacher: Teacher (:mod:`mmtransmamba.models.teachers`), or its config.
        terms: Terms (:mod:`mmtransmamba.transfer.terms`) by name; None omits one.
        alpha: :math:`\alpha`, the weight of the task's loss, in [0, 1].
        distill_weight: Factor of the terms; ``1 - alpha`` by default.
        teacher_layer: Teacher layer for each student layer, see
            :func:`mmtransmamba.transfer.alignment.match_layers`.
        num_tokens: Tokens per image that layer and direction terms compare, drawn
            anew each step; None compares all. See :class:`TapRecorder`.
        channel_order: Channel order in which three-channel images reach the student,
            ``'rgb'`` or ``'bgr'``; the teacher receives RGB. By default RGB if the data
            preprocessor swaps channels (``to_rgb=True``, ``bgr_to_rgb=True``), and
            otherwise BGR, the order in which OpenCV reads files. Data sets that yield
            RGB themselves need ``'rgb'`` without a swap (mmpretrain's CIFAR), and
            ``'bgr'`` with one (``rgb_to_bgr=True``).
        average: ``'images'``: batches of different size that an optimizer step
            accumulates are weighted by their images; ``'batches'``: they have equal
            weights, as in mmengine, and always under DDP. See
            :class:`~mmtransmamba.models.trainable.step_average.StepAverage`.
        teacher_device: Where the teacher runs, if not on the student's device: one
            for all processes, such as ``'cuda:1'``, or a list with one for each
            process of a machine.
        data_preprocessor: The student's, as the Runner passes it.
        init_cfg: mmengine initialisation config.

    Raises:
        ValueError: A term does not support this pair; the message names it.
    """

    def __init__(
        self,
        student: dict | nn.Module,
        teacher: dict | BaseTeacher,
        terms: dict[str, dict | None],
        alpha: float = 0.5,
        distill_weight: float | None = None,
        teacher_layer: str | int | Sequence[int] = 'auto',
        num_tokens: int | None = None,
        channel_order: str | None = None,
        average: str = IMAGES,
        teacher_device: str | Sequence[str] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if not isinstance(student, nn.Module):
            student = dict(student)
            if data_preprocessor is not None:
                student['data_preprocessor'] = data_preprocessor
            student = MODELS.build(student)
        student_kind = kind_of(student)
        super().__init__(student.data_preprocessor, init_cfg)
        self._average_over(average, IMAGES, BATCHES)
        if not 0 <= alpha <= 1:
            raise ValueError(
                f'MultiDirectionDistiller: alpha={alpha} must lie in [0, 1].'
            )
        if num_tokens is not None and num_tokens < 1:
            raise ValueError(
                f'MultiDirectionDistiller: num_tokens={num_tokens} must be at least 1, '
                'or None for all.'
            )
        if channel_order not in (None, 'rgb', 'bgr'):
            raise ValueError(
                f'MultiDirectionDistiller: channel_order={channel_order!r} must be '
                "'rgb', 'bgr' or None."
            )
        for name in terms:
            if name == 'task' or name.startswith('task_'):
                raise ValueError(
                    f'MultiDirectionDistiller: terms[{name!r}] has the name of the '
                    'loss of the task; give the term another one.'
                )
        self.student_kind = student_kind
        if not isinstance(teacher, nn.Module):
            teacher = MODELS.build(teacher)
        student_kind.check_teacher(student, teacher)
        self._hold(student, teacher, teacher_device)
        self.channel_order = channel_order or _channel_order(self.data_preprocessor)
        self.alpha = alpha
        self.distill_weight = 1 - alpha if distill_weight is None else distill_weight
        check_weight(self, self.distill_weight, 'distill_weight')

        built = self._build_terms(terms, 'train the student without a distiller')
        self.recorder = TapRecorder(
            student, num_tokens, any(term.needs_directions for term in built)
        )
        self.layer_map = match_layers(
            len(self.recorder.layer_taps), teacher.num_layers, teacher_layer
        )
        pair = self._pair()
        for term in built:
            term.bind(pair)

    @classmethod
    def computes(cls, kind: type[Term]) -> bool:
        """All terms but those of language models."""
        return not issubclass(kind, LanguageTerm)

    def _pair(self) -> TransferPair:
        layer_taps = self.recorder.layer_taps
        direction_taps = self.recorder.direction_taps
        head = getattr(self.student, 'head', None)
        return TransferPair(
            student=type(self.student).__name__,
            layer_dims=[tap.dim for tap in layer_taps],
            direction_dims=[tap.dim for tap in direction_taps],
            num_directions=[tap.num_directions for tap in direction_taps],
            feature_dim=self.student_kind.feature_dim(self.student, layer_taps[-1].dim),
            num_classes=getattr(head, 'num_classes', None),
            teacher=self.teacher,
            layer_map=self.layer_map,
        )

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth for layer-wise learning rate decay; aligners count as the head."""
        name = param_name.removeprefix(prefix).removeprefix('student.')
        return self.student_kind.layer_depth(self.student, name)

    def forward(
        self,
        inputs: Tensor,
        data_samples: list | dict | None = None,
        mode: str = 'tensor',
        share: Share | None = None,
    ) -> Any:
        """Like the student; ``mode='loss'`` distils.

        Args:
            inputs: Normalised images ``[B, C, H, W]`` or videos ``[B, C, T, H, W]``.
            data_samples: Ground truth; a dict with the captions of videos.
            mode: ``'loss'``, ``'predict'`` or ``'tensor'``.
            share: The batch's share of the step, see
                :mod:`~mmtransmamba.models.trainable.step_average`.
        """
        if mode == 'loss':
            losses = self.loss(inputs, data_samples)
            return {
                name: times(share, IMAGES, value) if 'loss' in name else value
                for name, value in losses.items()
            }
        self.recorder.close()
        return self.student(self._cast(inputs), data_samples, mode=mode)

    def train_step(
        self, data: dict | tuple | list, optim_wrapper: OptimWrapper
    ) -> dict[str, Tensor]:
        """See :class:`StepAverage`; mmengine's own for a batch that is the whole step.

        Of several processes, only wrappers that leave the averaging to the model call
        this method.
        """
        whole = accumulated_batches(optim_wrapper) == 1 and get_world_size() == 1
        if whole and not is_fully_sharded(self):
            return super(StepAverage, self).train_step(data, optim_wrapper)
        return super().train_step(data, optim_wrapper)

    def count_units(self, data: dict[str, Any]) -> dict[str, int]:
        """Number of images in a batch."""
        return {IMAGES: len(data['inputs'])}

    def _cast(self, inputs: Tensor) -> Tensor:
        """Cast inputs to the dtype of the student."""
        return inputs.to(next(self.student.parameters()).dtype)

    def teacher_images(self, inputs: Tensor) -> Tensor:
        """Undo the student's normalisation: RGB on the scale 0 to 255.

        Padding added after normalising stays padding: its zeros become the mean colour,
        which the teacher's own normalisation maps close to zero again.
        """
        preprocessor = self.data_preprocessor
        inputs = inputs.float()
        if normalizes(preprocessor):
            inputs = inputs * preprocessor.std + preprocessor.mean
        if inputs.shape[1] == 3 and self.channel_order == 'bgr':
            inputs = inputs.flip(1)
        return inputs

    @torch.no_grad()
    def teacher_predict(self, data: dict[str, Any]) -> list | None:
        """Predictions of a classifier's teacher in the student's format.

        Returns:
            Data samples; None if the teacher does not classify the student's classes.
        """
        head = getattr(self.student, 'head', None)
        known = self.teacher.num_classes
        if known is None or known != getattr(head, 'num_classes', None):
            return None
        logits = self.teacher(self.teacher_images(data['inputs'])).logits
        return head._get_predictions(logits, data['data_samples'])

    def loss(self, inputs: Tensor, data_samples: list | dict) -> dict[str, Tensor]:
        """Losses of one step.

        Returns:
            ``loss_task`` (and the task's other losses, with that prefix) times
            alpha, and ``loss_KEY`` for each key of ``terms`` (with ``_entropy`` for
            the regulariser of its weighting) times the distillation weight. Their
            sum is the total of Eq. 12.
        """
        active = self.active()
        # Nobody asks the teacher once all terms have faded out.
        taught = None
        if active:
            taught = self.student_kind.teach(
                self.teacher, self.teacher_images(inputs), data_samples
            )
        self.recorder.start(any(term.needs_directions for term in active.values()))
        step = self.student_kind.step(self.student, self._cast(inputs), data_samples)
        record = self.recorder.stop()
        losses = {}
        for name, value in step.losses.items():
            if 'loss' in name:
                losses[name.replace('loss', 'loss_task', 1)] = _times(self.alpha, value)
            else:
                losses[name] = value
        for key, term in self.terms.items():
            if key not in active:
                losses[f'loss_{key}'] = zero_of(term.parameters(), inputs.device)
        if not active:
            return losses
        batch = DistillBatch(
            student=record,
            feature=step.feature,
            logits=step.logits,
            extra=step.extra,
            teacher=taught,
            teacher_tokens=TeacherTokens(taught.layers),
            layer_map=self.layer_map,
            token_index=self.recorder.token_index,
        )
        for key, term in active.items():
            for name, _, value in scaled_losses(key, term, batch):
                losses[name] = self.distill_weight * value
        return losses


def _channel_order(preprocessor: nn.Module) -> str:
    """Channel order of a data preprocessor's output, where files are BGR."""
    # mmpretrain's stores its argument; mmengine's, the base of mmseg's and mmdet's,
    # stores only whether channels are swapped. Others leave images unchanged.
    swaps = getattr(preprocessor, 'to_rgb', swaps_channels(preprocessor))
    return getattr(preprocessor, 'channel_order', 'rgb' if swaps else 'bgr')


def _times(factor: float, loss: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """A loss, or the list of losses that a detector has per level, times a factor."""
    if isinstance(loss, Tensor):
        return factor * loss
    return [factor * part for part in loss]
