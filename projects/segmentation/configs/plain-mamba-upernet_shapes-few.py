# The same segmentor with labels for 40 scenes only.
_base_ = './plain-mamba-upernet_shapes.py'

train_dataloader = dict(dataset=dict(num_images=40))
