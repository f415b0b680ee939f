# Table VII, row "Feature"; at full weight to the end, because there are no logits to
# take over.
_base_ = '../digits_transfer.py'

model = dict(terms=dict(logits=None, layer=None, direction=None))
custom_hooks = [
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
]
