"""MOHAWK's first stage: a mixer's matrix against that of the attention."""

from __future__ import annotations

from torch import Tensor

from mmtransmamba.models.language.mixers import DecoderMixer
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.terms.language import (
    ForcedLayer,
    ForcedTerm,
    LanguagePair,
    token_mean,
)
from mmtransmamba.transfer.watch import layers_of


@MODELS.register_module()
class MixingMatrixTerm(ForcedTerm):
    r"""Matrix of a mixer against the attention's weights (MOHAWK, arXiv:2408.10189).

    :math:`\sum_i \frac{1}{H} \sum_h \| W_{i,h} - M_{i,h} \|_F^2` over the Mamba layers,
    where W has the weights of the attention after the softmax and M is
    :meth:`~mmtransmamba.models.language.mixers.DecoderMixer.mixing_matrix`, both for
    the teacher's hidden state before layer i. The squared norm of a row, which belongs
    to one token, is averaged over the tokens that are not padding, so the loss does
    not grow with batch and length. Memory grows with the square of the length.

    Norm, gate and output projection of the mixer have no gradient, and neither has the
    part of a convolution that acts on the values.

    The teacher computes with ``attn_implementation='eager'``, the only one that returns
    its weights.

    Args:
        weight: Factor of the term.
    """

    def bind(self, pair: LanguagePair) -> None:
        super().bind(pair)
        layers = layers_of(pair.student)
        for i in pair.mamba_layers:
            mixer = layers[i].self_attn
            if type(mixer).mixing_matrix is DecoderMixer.mixing_matrix:
                raise ValueError(
                    f'MixingMatrixTerm: layer {i} has a {type(mixer).__name__}, which '
                    'has no mixing matrix; Mamba2, GatedDeltaNet and KDA have one.'
                )
        student, teacher = (
            model.config.get_text_config().num_attention_heads
            for model in (pair.student, pair.teacher)
        )
        if student != teacher:
            raise ValueError(
                f'MixingMatrixTerm: the student has {student} heads, the teacher '
                f'{teacher}; there is one matrix for each head.'
            )
        pair.teacher.set_attn_implementation('eager')

    def forward(self, batch: ForcedLayer) -> dict[str, Tensor]:
        if 'packing' in batch.rows:
            raise ValueError(
                'MixingMatrixTerm: position_ids that begin anew pack several sequences '
                'into a row, which has no single matrix; give each its own row.'
            )
        normed = batch.layer.input_layernorm(batch.input)
        rows = {k: batch.rows[k] for k in ('padding_mask', 'gaps') if k in batch.rows}
        matrix = batch.layer.self_attn.mixing_matrix(normed, **rows)
        difference = matrix.float() - batch.call.weights.float()
        error = difference.square().sum(-1).mean(1)
        return {'': self.weight * token_mean(error, batch.mask)}
