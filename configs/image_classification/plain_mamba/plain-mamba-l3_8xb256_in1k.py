# The official rate is published without a batch size; we keep that of L1.
_base_ = './plain-mamba-l2_8xb256_in1k.py'

model = dict(backbone=dict(arch='L3'), head=dict(in_channels=448))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
