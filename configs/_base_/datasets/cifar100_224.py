# CIFAR-100, enlarged to 224 pixels as the paper does.
_base_ = './cifar10_224.py'

data_preprocessor = dict(num_classes=100)

cifar100 = dict(type='CIFAR100', data_root='data/cifar100')
train_dataloader = dict(dataset=dict(dataset=cifar100))
val_dataloader = dict(dataset=cifar100)
test_dataloader = val_dataloader
