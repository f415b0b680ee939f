# digits_scratch.py with a VMamba.
_base_ = ['./digits_scratch.py', '../_base_/models/vmamba_digits.py']

model = dict(backbone=dict(_delete_=True, **_base_.backbone))
