"""Zero-shot benchmarks of language models, scored as lm-evaluation-harness does."""

from .likelihood import Likelihood, log_likelihoods
from .questions import Question
from .scores import Score, TaskResult, evaluate_task, relative_recovery
from .tasks import TASKS, Task, read_questions

__all__ = [
    'Likelihood',
    'Question',
    'Score',
    'TASKS',
    'Task',
    'TaskResult',
    'evaluate_task',
    'log_likelihoods',
    'read_questions',
    'relative_recovery',
]
