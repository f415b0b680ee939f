# TransMamba-L with reasoning: all of the teacher's attention becomes Mamba-1 and is
# distilled as in configs/multimodal/transmamba, on 40K samples.
_base_ = [
    '../../_base_/models/reasoning_llama_3_2_1b_vlm.py',
    '../../_base_/recipes/transmamba.py',
]

model = _base_.pop('transmamba')
