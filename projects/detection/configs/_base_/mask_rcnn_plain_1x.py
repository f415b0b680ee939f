# Mask R-CNN on ViTDet's pyramid over the last map of PlainMamba, 12 epochs; child
# configs set widths and weights.
_base_ = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'
custom_imports = dict(imports=['projects.detection.simple_pyramid'])

model = dict(
    backbone=dict(_delete_=True, type='mmtransmamba.PlainMamba', img_size=1024),
    neck=dict(_delete_=True, type='mmtransmamba.SimplePyramid', out_channels=256),
)
optim_wrapper = dict(
    constructor='mmtransmamba.NoWeightDecayConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0),
)
