# Table VIII: 100 % of the training images.
_base_ = '../trans-plain-mamba-s_1xb128_in100.py'

train_dataloader = dict(dataset=dict(proportion=1.0))
