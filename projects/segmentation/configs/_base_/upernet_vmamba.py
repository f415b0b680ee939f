# UPerNet on the four stages of VMamba; child configs set widths and weights.
_base_ = 'mmseg::_base_/models/upernet_swin.py'

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        _delete_=True,
        type='mmtransmamba.VMamba',
        out_indices=(0, 1, 2, 3),
        with_outnorms=True,
    ),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
