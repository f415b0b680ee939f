_base_ = './plain-mamba-t_1xb128_cifar10.py'

model = dict(backbone=dict(arch='S'), head=dict(in_channels=384))
