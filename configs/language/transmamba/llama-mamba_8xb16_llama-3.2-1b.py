# Llama-Mamba: all attention becomes Mamba-1 with the weights of a trained Mamba;
# everything else is copied from Llama. The layers are distilled from the teacher's,
# weighted by the meta-network.
_base_ = [
    '../../_base_/models/llama_3_2_1b_lm.py',
    '../../_base_/recipes/transmamba.py',
]

model = _base_.pop('transmamba')
