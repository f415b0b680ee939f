# Table VII, row "Logits".
_base_ = '../digits_transfer.py'

model = dict(terms=dict(feature=None, layer=None, direction=None))
custom_hooks = [
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
]
