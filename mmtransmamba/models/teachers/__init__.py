from .base import BaseTeacher, TeacherOutput
from .cached_teacher import CachedTeacher
from .mmpretrain_teacher import MMPretrainTeacher
from .timm_teacher import TimmTeacher
from .transformers_teacher import TransformersTeacher

__all__ = [
    'BaseTeacher',
    'CachedTeacher',
    'MMPretrainTeacher',
    'TeacherOutput',
    'TimmTeacher',
    'TransformersTeacher',
]
