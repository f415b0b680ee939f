# Table VII, row "Feature"; at full weight to the end, as no logits would take over.
_base_ = '../digits_transfer.py'

model = dict(terms=dict(logits=None, layer=None, direction=None))
custom_hooks = [
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
]
