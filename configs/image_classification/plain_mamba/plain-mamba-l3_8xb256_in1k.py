# The official rate is stated without a batch size; L1's is kept.
_base_ = './plain-mamba-l2_8xb256_in1k.py'

model = dict(backbone=dict(arch='L3'), head=dict(in_channels=448))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
