from .base import BaseTeacher, TeacherOutput
from .mmpretrain_teacher import MMPretrainTeacher
from .timm_teacher import TimmTeacher
from .transformers_teacher import TransformersTeacher

__all__ = [
    'BaseTeacher',
    'MMPretrainTeacher',
    'TeacherOutput',
    'TimmTeacher',
    'TransformersTeacher',
]
