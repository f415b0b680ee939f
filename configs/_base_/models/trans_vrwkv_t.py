# VRWKV-T distilled from DeiT-T. It inherits nothing: the paper's main runs leave
# subcloning to PlainMamba (TransMamba, Section 3.3).
_base_ = ['./vrwkv_t.py', './distil_deit_t.py']

model = dict(_delete_=True, student=_base_.model, **_base_.distiller)
custom_hooks = [dict(type='mmtransmamba.LayerWeightsHook')]
