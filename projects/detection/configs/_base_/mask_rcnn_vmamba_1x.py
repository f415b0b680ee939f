# Mask R-CNN on the four stages of VMamba, 12 epochs, with the settings of Swin's
# authors, adopted by VMamba's; child configs set widths and weights.
_base_ = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmtransmamba.VMamba',
        out_indices=(0, 1, 2, 3),
        with_outnorms=True,
    )
)
optim_wrapper = dict(
    constructor='mmtransmamba.NoWeightDecayConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0),
)
