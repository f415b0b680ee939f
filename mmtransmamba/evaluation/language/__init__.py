"""Benchmarks of language models: official zero-shot sets, and generated ones."""

from .answering import Answers, answer
from .generated import GENERATED, GROUPS, GeneratedTask, generate_questions
from .letters import evaluate_letters
from .likelihood import Likelihood, log_likelihoods
from .questions import Question, lettered
from .scores import Score, TaskResult, evaluate_task, relative_recovery
from .tasks import TASKS, Task, read_questions
from .writing import same_words, write_answers

__all__ = [
    'Answers',
    'GENERATED',
    'GROUPS',
    'GeneratedTask',
    'Likelihood',
    'Question',
    'Score',
    'TASKS',
    'Task',
    'TaskResult',
    'answer',
    'evaluate_letters',
    'evaluate_task',
    'generate_questions',
    'lettered',
    'log_likelihoods',
    'read_questions',
    'relative_recovery',
    'same_words',
    'write_answers',
]
