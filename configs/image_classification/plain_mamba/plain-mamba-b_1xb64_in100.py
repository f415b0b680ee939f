_base_ = './plain-mamba-t_1xb128_in100.py'

model = dict(backbone=dict(arch='B'), head=dict(in_channels=768))

train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=64)
