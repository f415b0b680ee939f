"""Text-video retrieval: CLIP4Clip, and VideoMamba with CLIP's text tower."""

from .base import TextVideoRetriever
from .clip4clip import CLIP4Clip
from .contrastive import ContrastiveLoss
from .data_preprocessor import RetrievalDataPreprocessor
from .pairs import PairEmbeddings
from .student_kind import RetrieverKind
from .teacher import CLIP4ClipTeacher
from .video_mamba import VideoMambaRetriever

__all__ = [
    'CLIP4Clip',
    'CLIP4ClipTeacher',
    'ContrastiveLoss',
    'PairEmbeddings',
    'RetrievalDataPreprocessor',
    'RetrieverKind',
    'TextVideoRetriever',
    'VideoMambaRetriever',
]
