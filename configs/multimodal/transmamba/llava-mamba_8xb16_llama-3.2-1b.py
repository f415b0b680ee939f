# TransMamba-L: all attention of LLaVA's Llama becomes Mamba-1 with the weights of a
# trained Mamba; everything else is copied from the teacher. The layers are distilled
# from the teacher's, weighted by the meta-network. The vision tower stays frozen, as in
# LLaVA's training.
_base_ = [
    '../../_base_/models/llava_llama_3_2_1b_vlm.py',
    '../../_base_/recipes/transmamba.py',
]

model = _base_.pop('transmamba')
