"""Base of the heads: the loss on a vision-language model's logits, and its answers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmtransmamba.models.token_losses import mean_over_tokens, predicted, token_nll

# Fields of a batch that describe its questions; the model does not accept them.
ABOUT = ('answers', 'question_ids', 'categories')


class VisionLanguageHead(BaseModule):
    """The task of a vision-language model: its loss, and how it answers.

    It has no parameters; those of the logits belong to the language model. A subclass
    defines how text is generated, and which part of it is the answer.
    """

    def loss(
        self, logits: Tensor, labels: Tensor | None, attention_mask: Tensor | None
    ) -> dict[str, Tensor]:
        """``loss_task``: mean negative log-likelihood of the tokens.

        Args:
            logits: ``[B, L, V]``.
            labels: ``[B, L]``, negative where a token is not to be predicted, as in
                prompts and images.
            attention_mask: ``[B, L]``, 0 for padding.
        """
        valid = predicted(labels, attention_mask)
        rows, targets = logits[:, :-1][valid], labels[:, 1:][valid]
        return dict(loss_task=mean_over_tokens(token_nll, rows, targets))

    @abstractmethod
    def generate(
        self, model: nn.Module, processor: Any, batch: dict[str, Any]
    ) -> list[str]:
        """Text that a model generates after each prompt of a batch.

        Args:
            model: A transformers model.
            processor: Its processor or tokenizer.
            batch: ``input_ids`` and ``attention_mask`` ``[B, L]``, padded on the left,
                and further inputs of the model, such as ``pixel_values``.
        """

    @abstractmethod
    def answer_of(self, text: str) -> str:
        """The answer in a generated text."""

    def predict(
        self, model: nn.Module, processor: Any, batch: dict[str, Any]
    ) -> list[dict[str, str]]:
        """Answer the questions of a batch.

        Args:
            model, processor: See :meth:`generate`.
            batch: As above, with the correct ``answers``, and optionally
                ``question_ids`` and ``categories``.

        Returns:
            For each question ``prediction``, ``answer``, ``question_id``,
            ``category``, and ``text``, the whole generated text.
        """
        texts = self.generate(
            model, processor, {k: v for k, v in batch.items() if k not in ABOUT}
        )
        count = len(texts)
        identifiers = batch.get('question_ids') or [''] * count
        categories = batch.get('categories') or [''] * count
        return [
            dict(
                prediction=self.answer_of(text),
                answer=answer,
                question_id=identifier,
                category=category,
                text=text,
            )
            for text, answer, identifier, category in zip(
                texts, batch['answers'], identifiers, categories, strict=True
            )
        ]
