# Table VII, row "Baseline": no distillation, all of the data.
_base_ = '../../plain_mamba/plain-mamba-t_1xb128_cifar100.py'
