"""Check that two models assign the same tokens to their ids."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmtransmamba.models.folders.companions import Companions


def read_tokens(
    model: nn.Module, companions: Companions | None = None
) -> dict[int, str]:
    """The tokens of a model's tokenizer by their ids, including added ones.

    Args:
        model: A transformers model; without companions, its own folder is searched.
        companions: Its tokenizer or processor.

    Raises:
        ValueError: The model has no readable tokenizer.
    """
    tokenizer = _find(companions) if companions is not None else None
    folder = getattr(companions, 'folder', None) or getattr(model, 'name_or_path', None)
    if tokenizer is None:
        if not folder:
            raise ValueError('it has no folder with a tokenizer')
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # tokenizers raise different errors
            raise ValueError(
                f'its tokenizer cannot be read from "{folder}": {error}'
            ) from error
    return {i: token for token, i in tokenizer.get_vocab().items()}


def _find(companions: Companions) -> Any:
    """The tokenizer in memory, if there is one."""
    processor = companions.in_memory
    return getattr(processor, 'tokenizer', processor)


def check_shared_tokens(
    student: dict[int, str], teacher: dict[int, str], count: int
) -> None:
    """Check that no id below ``count`` stands for two different tokens.

    Ids known to only one of two tokenizers are padding, or were added to one side.

    Raises:
        ValueError: An id does.
    """
    both = [i for i in range(count) if i in student and i in teacher]
    wrong = [i for i in both if student[i] != teacher[i]]
    if wrong:
        i = wrong[0]
        raise ValueError(
            f'{len(wrong)} of {len(both)} ids stand for different tokens, such as '
            f"{i}, the student's {student[i]!r} and the teacher's {teacher[i]!r}"
        )
    if not both:
        raise ValueError('their tokenizers share no id')
