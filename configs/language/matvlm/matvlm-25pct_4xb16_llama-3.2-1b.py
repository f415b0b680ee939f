# MaTVLM's single stage.
_base_ = [
    '../../_base_/models/llama_3_2_1b_lm.py',
    '../../_base_/recipes/matvlm.py',
]

model = _base_.pop('matvlm')
