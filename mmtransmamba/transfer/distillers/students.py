"""The kinds of students that can be distilled, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmtransmamba.models.retrieval import (
    CLIP4ClipTeacher,
    PairEmbeddings,
    TextVideoRetriever,
)
from mmtransmamba.models.teachers import BaseTeacher, TeacherOutput


@dataclass
class StudentStep:
    """What a student says in one training step.

    Attributes:
        losses: The task's losses and statistics, by name; a loss may be a list of
            tensors.
        feature: Final feature ``[B, C]``, None if the student has none.
        logits: Logits of the whole images ``[B, num_classes]``, None likewise.
        pairs: Embeddings of videos and captions, None without captions.
    """

    losses: dict[str, Any]
    feature: Tensor | None = None
    logits: Tensor | None = None
    pairs: PairEmbeddings | None = None


class StudentKind(ABC):
    """How to run a student of one kind, and its teacher beside it.

    Attributes:
        teacher_type: What its teachers must be.
    """

    teacher_type: type[BaseTeacher] = BaseTeacher

    @staticmethod
    @abstractmethod
    def feature_dim(student: nn.Module, token_dim: int) -> int | None:
        """Width of the feature of its steps, None without one.

        Args:
            student: The student.
            token_dim: Width of the tokens after its last block.
        """

    def check_teacher(self, student: nn.Module, teacher: nn.Module) -> None:
        """Check that such students can learn from a teacher.

        Raises:
            ValueError: They cannot.
        """
        if not isinstance(teacher, self.teacher_type):
            raise ValueError(
                f'MultiDirectionDistiller: the teacher of {type(student).__name__} '
                f'must be a {self.teacher_type.__name__}, not '
                f'{type(teacher).__name__}.'
            )

    @staticmethod
    def teach(teacher: BaseTeacher, images: Tensor, data_samples: Any) -> TeacherOutput:
        """Run the teacher once on RGB images on the scale 0 to 255."""
        return teacher(images)

    @staticmethod
    @abstractmethod
    def step(student: nn.Module, inputs: Tensor, data_samples: Any) -> StudentStep:
        """Run the student once on normalised images ``[B, C, (T,) H, W]``."""

    @staticmethod
    @abstractmethod
    def layer_depth(student: nn.Module, name: str) -> tuple[int, int]:
        """Depth of a parameter, and number of depths, for layer-wise decay."""


class Classifier(StudentKind):
    """A classifier of mmpretrain."""

    @staticmethod
    def feature_dim(student: nn.Module, token_dim: int) -> int:
        return token_dim

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

    @staticmethod
    def feature_dim(student: nn.Module, token_dim: int) -> None:
        return None

    @staticmethod
    def step(student: nn.Module, inputs: Tensor, data_samples: list) -> StudentStep:
        return StudentStep(losses=student.loss(inputs, data_samples))

    @staticmethod
    def layer_depth(student: nn.Module, name: str) -> tuple[int, int]:
        return student.backbone.get_layer_depth(name, 'backbone.')


class Retriever(StudentKind):
    """A text-video retriever of this package; its teacher reads captions too.

    Its feature is the embedding of a video, in the space they share with captions.
    """

    teacher_type = CLIP4ClipTeacher

    @staticmethod
    def feature_dim(student: nn.Module, token_dim: int) -> int:
        return student.dim

    @staticmethod
    def teach(
        teacher: BaseTeacher, images: Tensor, data_samples: dict
    ) -> TeacherOutput:
        return teacher(images, data_samples)

    @staticmethod
    def step(student: nn.Module, inputs: Tensor, data_samples: dict) -> StudentStep:
        pairs = student.embed_pairs(inputs, data_samples)
        return StudentStep(
            losses=student.pair_losses(pairs, data_samples),
            feature=pairs.video,
            pairs=pairs,
        )

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
    if isinstance(student, TextVideoRetriever) and hasattr(student, 'backbone'):
        return Retriever()
    if hasattr(student, 'backbone') and callable(getattr(student, 'loss', None)):
        return DensePredictor()
    raise ValueError(
        f'MultiDirectionDistiller: the student {type(student).__name__} must be a '
        'classifier of mmpretrain, a segmentor of mmseg, a detector of mmdet or a '
        'VideoMambaRetriever: a model with a backbone and loss(inputs, data_samples).'
    )
