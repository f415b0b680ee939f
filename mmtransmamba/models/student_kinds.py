"""The kinds of students that can be distilled, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmtransmamba.models.teachers import BaseTeacher, TeacherOutput
from mmtransmamba.models.teachers.recorded import recorded_output
from mmtransmamba.registry import STUDENT_KINDS


@dataclass
class StudentStep:
    """Outputs of a student in one training step.

    Attributes:
        losses: The task's losses and statistics, by name; a loss may be a list of
            tensors.
        feature: Final feature ``[B, C]``, None if the student has none.
        logits: Logits of the whole images ``[B, num_classes]``, None if there are none.
        extra: Outputs used only by terms for this kind, such as the embeddings of
            videos and captions.
    """

    losses: dict[str, Any]
    feature: Tensor | None = None
    logits: Tensor | None = None
    extra: Any = None


class StudentKind(ABC):
    """How to run a student of one kind together with its teacher.

    A family of models is added by registering its kind in
    :data:`~mmtransmamba.registry.STUDENT_KINDS`.

    Attributes:
        members: Description of its students, for messages.
        teacher_type: Required class of its teachers.
    """

    members: str
    teacher_type: type[BaseTeacher] = BaseTeacher

    @staticmethod
    @abstractmethod
    def includes(student: nn.Module) -> bool:
        """Whether a model is a student of this kind."""

    @staticmethod
    @abstractmethod
    def feature_dim(student: nn.Module, token_dim: int) -> int | None:
        """Width of the student's feature, None if it has none.

        Args:
            student: The student.
            token_dim: Width of the tokens after its last block.
        """

    def check_teacher(self, student: nn.Module, teacher: nn.Module) -> None:
        """Check that such students can learn from a teacher.

        Raises:
            ValueError: The combination is not supported.
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


@STUDENT_KINDS.register_module()
class Classifier(StudentKind):
    """A classifier of mmpretrain; its samples may contain the teacher's output."""

    members = 'a classifier of mmpretrain'

    @staticmethod
    def includes(student: nn.Module) -> bool:
        return hasattr(getattr(student, 'head', None), 'pre_logits')

    @staticmethod
    def teach(
        teacher: BaseTeacher, images: Tensor, data_samples: list
    ) -> TeacherOutput:
        recorded = recorded_output(data_samples, images.device)
        return teacher(images) if recorded is None else recorded

    @staticmethod
    def feature_dim(student: nn.Module, token_dim: int) -> int:
        return token_dim

    @staticmethod
    def step(student: nn.Module, inputs: Tensor, data_samples: list) -> StudentStep:
        features = student.extract_feat(inputs)
        head = student.head
        # The task's loss runs the head a second time. Heads are a small linear layer,
        # and mmpretrain has no call that returns both logits and losses.
        return StudentStep(
            losses=head.loss(features, data_samples),
            feature=head.pre_logits(features),
            logits=head(features),
        )

    @staticmethod
    def layer_depth(student: nn.Module, name: str) -> tuple[int, int]:
        return student.get_layer_depth(name)


class DensePredictor(StudentKind):
    """A model that labels parts of an image: mmseg's segmentors, mmdet's detectors.

    The outputs of its heads depend on the task, so only the backbone's layers and
    directions can be compared with a teacher's. A model is of this kind if no other
    kind includes it.
    """

    members = 'a segmentor of mmseg or a detector of mmdet'

    @staticmethod
    def includes(student: nn.Module) -> bool:
        return hasattr(student, 'backbone') and callable(getattr(student, 'loss', None))

    @staticmethod
    def feature_dim(student: nn.Module, token_dim: int) -> None:
        return None

    @staticmethod
    def step(student: nn.Module, inputs: Tensor, data_samples: list) -> StudentStep:
        return StudentStep(losses=student.loss(inputs, data_samples))

    @staticmethod
    def layer_depth(student: nn.Module, name: str) -> tuple[int, int]:
        return student.backbone.get_layer_depth(name, 'backbone.')


def kind_of(student: nn.Module) -> StudentKind:
    """Determine the kind of a student.

    Raises:
        ValueError: The model cannot be distilled.
    """
    STUDENT_KINDS.import_from_location()
    kinds = [*STUDENT_KINDS.module_dict.values(), DensePredictor]
    for kind in kinds:
        if kind.includes(student):
            return kind()
    members = ', '.join(kind.members for kind in kinds)
    raise ValueError(
        f'MultiDirectionDistiller: the student {type(student).__name__} must be '
        f'{members}: a model with a backbone and loss(inputs, data_samples).'
    )
