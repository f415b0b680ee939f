"""Text-video retrievers as students of a distillation."""

from __future__ import annotations

from torch import Tensor, nn

from mmtransmamba.models.retrieval.base import TextVideoRetriever
from mmtransmamba.models.retrieval.teacher import CLIP4ClipTeacher
from mmtransmamba.models.student_kinds import StudentKind, StudentStep
from mmtransmamba.models.teachers import BaseTeacher, TeacherOutput
from mmtransmamba.registry import STUDENT_KINDS


@STUDENT_KINDS.register_module()
class RetrieverKind(StudentKind):
    """A text-video retriever of this package, whose teacher also reads captions.

    Its feature is the embedding of a video, in the space shared with captions.
    """

    members = 'a VideoMambaRetriever'
    teacher_type = CLIP4ClipTeacher

    @staticmethod
    def includes(student: nn.Module) -> bool:
        return isinstance(student, TextVideoRetriever) and hasattr(student, 'backbone')

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
            extra=pairs,
        )

    @staticmethod
    def layer_depth(student: nn.Module, name: str) -> tuple[int, int]:
        return student.backbone.get_layer_depth(name, 'backbone.')
