# With averaged weights; the momentum is that of mmpretrain's DeiT-B.
_base_ = './plain-mamba-l1_8xb256_in1k.py'

model = dict(backbone=dict(arch='L2'), head=dict(in_channels=384))
custom_hooks = [dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]
