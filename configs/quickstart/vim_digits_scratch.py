# digits_scratch.py with a Vim; its head reads the class token.
_base_ = ['./digits_scratch.py', '../_base_/models/vim_digits.py']

model = dict(backbone=dict(_delete_=True, **_base_.backbone), neck=None)
