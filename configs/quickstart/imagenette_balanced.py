# The best row of docs/results/vision.md: logits and the final feature, whose gradient
# stays as large as that of the logits; no layers, no directions, random weights.
_base_ = './imagenette_transfer.py'

model = dict(terms=dict(layer=None, direction=None))
custom_hooks = [dict(type='mmtransmamba.TermBalanceHook', terms=['feature'])]
