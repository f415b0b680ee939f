# Table VII: directions of adaptively weighted layers, final feature and logits.
_base_ = '../trans-plain-mamba-t_1xb128_cifar100.py'
