# digits_transfer.py with a VMamba, which also has four layers and four directions.
_base_ = ['./digits_transfer.py', '../_base_/models/vmamba_digits.py']

model = dict(student=dict(backbone=dict(_delete_=True, **_base_.backbone)))
custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer', weight_map='vit_to_vmamba'),
    _base_.decay,
    dict(type='mmtransmamba.ProgressBarHook', title='transfer'),
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
]
