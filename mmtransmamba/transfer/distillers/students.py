"""The kinds of students that can be distilled, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class StudentStep:
    """What a student says in one training step.

    Attributes:
        losses: The task's losses and statistics, by name; a loss may be a list of
            tensors.
        feature: Final feature ``[B, C]``, None if the student has none.
        logits: Logits of the whole images ``[B, num_classes]``, None likewise.
    """

    losses: dict[str, Any]
    feature: Tensor | None = None
    logits: Tensor | None = None


class StudentKind(ABC):
    """How to run a student of one kind.

    Attributes:
        describes_images: Whether its steps have a feature and logits.
    """

    describes_images: bool

    @staticmethod
    @abstractmethod
    def step(student: nn.Module, inputs: Tensor, data_samples: list) -> StudentStep:
        """Run the student once on normalised images ``[B, C, H, W]``."""

    @staticmethod
    @abstractmethod
    def layer_depth(student: nn.Module, name: str) -> tuple[int, int]:
        """Depth of a parameter, and number of depths, for layer-wise decay."""


class Classifier(StudentKind):
    """A classifier of mmpretrain."""

    describes_images = True

    @staticmethod
    def step(student: nn.Module, inputs: Tensor, data_samples: list) -> StudentStep:
        features = student.extract_feat(inputs)
        head = student.head
        # The task's loss runs the head once more; heads are a small linear layer, and
        # mmpretrain has no call that gives both logits and losses.
        return StudentStep(
            losses=head.loss(features, data_samples),
            feature=head.pre_logits(features),
            logits=head(features),
        )

    @staticmethod
    def layer_depth(student: nn.Module, name: str) -> tuple[int, int]:
        return student.get_layer_depth(name)


class DensePredictor(StudentKind):
    """A model with labels for parts of an image: mmseg's segmentors, mmdet's detectors.

    What its heads say depends on the task, so only the backbone's layers and
    directions can be compared with a teacher's.
    """

    describes_images = False

    @staticmethod
    def step(student: nn.Module, inputs: Tensor, data_samples: list) -> StudentStep:
        return StudentStep(losses=student.loss(inputs, data_samples))

    @staticmethod
    def layer_depth(student: nn.Module, name: str) -> tuple[int, int]:
        return student.backbone.get_layer_depth(name, 'backbone.')


def kind_of(student: nn.Module) -> StudentKind:
    """Tell which kind of student a model is.

    Raises:
        ValueError: It is none that can be distilled.
    """
    if hasattr(getattr(student, 'head', None), 'pre_logits'):
        return Classifier()
    if hasattr(student, 'backbone') and callable(getattr(student, 'loss', None)):
        return DensePredictor()
    raise ValueError(
        f'MultiDirectionDistiller: the student {type(student).__name__} must be a '
        'classifier of mmpretrain, a segmentor of mmseg or a detector of mmdet: a '
        'model with a backbone and loss(inputs, data_samples).'
    )
