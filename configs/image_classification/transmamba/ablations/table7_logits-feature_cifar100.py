# Table VII: logits and final feature.
_base_ = '../trans-plain-mamba-t_1xb128_cifar100.py'

model = dict(terms=dict(direction=None))
