# All attention layers of the ViT for CIFAR-10 become linear.
_base_ = [
    '../../_base_/models/hybrid_cifar10_vit.py',
    '../../_base_/datasets/cifar10_few_32.py',
    '../../_base_/recipes/encoder/align.py',
]

model = _base_.pop('encoder_stage')
