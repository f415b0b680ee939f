# mmMamba-hybrid: the first of every four layers keeps attention.
_base_ = [
    '../../_base_/models/hovle_2_6b_vlm.py',
    '../../_base_/recipes/mmmamba_stage1.py',
]

model = _base_.pop('mmmamba')
