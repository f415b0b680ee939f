# MaTVLM's single stage.
_base_ = [
    '../../_base_/models/phi_2_lm.py',
    '../../_base_/recipes/matvlm.py',
]

model = _base_.pop('matvlm')
