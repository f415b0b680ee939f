# MaTVLM's single stage.
_base_ = [
    '../../_base_/models/llava_phi_2_vlm.py',
    '../../_base_/recipes/matvlm.py',
]

model = _base_.pop('matvlm')
