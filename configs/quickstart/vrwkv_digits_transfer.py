# digits_transfer.py with a Vision-RWKV: four layers and two directions.
_base_ = ['./digits_transfer.py', '../_base_/models/vrwkv_digits.py']

model = dict(
    student=dict(backbone=dict(_delete_=True, **_base_.backbone)),
    terms=dict(direction=dict(weight=1 / 8)),
)
custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer', weight_map='vit_to_vrwkv'),
    _base_.decay,
    dict(type='mmtransmamba.ProgressBarHook', title='transfer'),
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
]
