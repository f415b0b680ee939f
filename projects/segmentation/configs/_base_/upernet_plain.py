# UPerNet on a backbone of one resolution: four of its blocks' maps, at 1/16 of the
# image, are brought to 1/4, 1/8, 1/16 and 1/32 by transposed convolutions and pooling.
_base_ = 'mmseg::_base_/models/upernet_swin.py'

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    neck=dict(type='Feature2Pyramid', rescales=[4, 2, 1, 0.5]),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
