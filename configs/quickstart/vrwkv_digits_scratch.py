# digits_scratch.py with a Vision-RWKV.
_base_ = ['./digits_scratch.py', '../_base_/models/vrwkv_digits.py']

model = dict(backbone=dict(_delete_=True, **_base_.backbone))
