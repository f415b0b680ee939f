# VRWKV-T distilled from DeiT-T, without subcloning: the paper uses subcloning only for
# PlainMamba in its main runs (TransMamba, Section 3.3).
_base_ = ['./vrwkv_t.py', './distil_deit_t.py']

model = dict(_delete_=True, student=_base_.model, **_base_.distiller)
custom_hooks = [dict(type='mmtransmamba.LayerWeightsHook')]
