_base_ = './vrwkv-t_1xb128_in1k.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
