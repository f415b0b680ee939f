"""Comparison of a hybrid encoder with its teacher before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.divergence import kl_of_logits


@dataclass
class ImageProof:
    """Comparison of a student with its teacher on held-out images.

    Attributes:
        images: Number of images.
        cosine: Mean cosine of the tokens after the last layer.
        kl: Divergence of the student's classes from the teacher's in nats, None
            without a classifier.
        agreement: Share of images with the same most likely class, None without one.
    """

    images: int
    cosine: float
    kl: float | None = None
    agreement: float | None = None

    def __str__(self) -> str:
        text = f'Against the teacher on {self.images:,} held-out images: '
        if self.kl is not None:
            text += (
                f'KL {self.kl:.4f} nats, same most likely class '
                f'{100 * self.agreement:.1f} %, '
            )
        return text + f'cosine of the last tokens {self.cosine:.4f}'


@torch.no_grad()
def compare_on_images(
    student: nn.Module, teacher: nn.Module, batches: Sequence[Tensor]
) -> ImageProof:
    """Compare a student with its teacher.

    Args:
        student, teacher: Transformers encoders, in evaluation mode.
        batches: Normalised images ``[B, 3, H, W]``.
    """
    count, cosine, kl, same = 0, 0.0, 0.0, 0.0
    classifies = False
    for images in batches:
        outputs = [
            model(images.to(model.device, model.dtype), output_hidden_states=True)
            for model in (student, teacher)
        ]
        tokens = [output.hidden_states[-1].float() for output in outputs]
        cosine += float(F.cosine_similarity(*tokens, dim=-1).mean(1).double().sum())
        count += len(images)
        logits = [getattr(output, 'logits', None) for output in outputs]
        classifies = logits[0] is not None
        if classifies:
            logits = [x.float() for x in logits]
            kl += float(kl_of_logits(*logits).double().sum())
            same += float((logits[0].argmax(-1) == logits[1].argmax(-1)).sum())
    figures = dict(kl=kl / count, agreement=same / count) if classifies else {}
    return ImageProof(count, cosine / count, **figures)
