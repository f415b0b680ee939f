"""Scores of responses that reason in four tagged sections, as LLaVA-CoT's."""

from mmtransmamba.utils.reasoning_text import (
    Answer,
    Response,
    Section,
    extract_answer,
    parse_response,
)

from .accuracy_metric import ReasoningAccuracy, judge_answer
from .format_metric import ReasoningFormat

__all__ = [
    'Answer',
    'ReasoningAccuracy',
    'ReasoningFormat',
    'Response',
    'Section',
    'extract_answer',
    'judge_answer',
    'parse_response',
]
