# The student alone on 2,000 images of CIFAR-10.
_base_ = [
    '../_base_/models/plain_mamba_cifar10.py',
    '../_base_/datasets/cifar10_few_32.py',
    '../_base_/schedules/imagenette.py',
    '../_base_/imagenette_runtime.py',
]
