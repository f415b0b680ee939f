# As digits_transfer.py with all terms at full weight to the end.
_base_ = '../digits_transfer.py'

custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer'),
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
]
