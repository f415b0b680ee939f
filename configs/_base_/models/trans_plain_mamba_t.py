# PMamba-T, which inherits from DeiT-T and is distilled from it.
_base_ = ['./plain_mamba_t.py', './distil_deit_t.py']

model = dict(_delete_=True, student=_base_.model, **_base_.distiller)
custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer', weight_map='vit_to_plainmamba'),
    dict(type='mmtransmamba.LayerWeightsHook'),
]
