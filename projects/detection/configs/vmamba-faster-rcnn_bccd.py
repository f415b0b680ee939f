# A small VMamba from scratch on BCCD: blood cells in 205 pictures, for a CPU.
# The data are expected in $BCCD_ROOT, or in data/bccd.
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', './_base_/bccd.py']

model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        _delete_=True,
        type='mmtransmamba.VMamba',
        arch=dict(
            embed_dims=32,
            depths=(1, 1, 2, 1),
            drop_path_rate=0.0,
            version='v05_noz',
            ssm_ratio=1.0,
            d_state=1,
        ),
        out_indices=(0, 1, 2, 3),
        with_outnorms=True,
    ),
    # From scratch, a pyramid without norms learns slowly.
    neck=dict(
        in_channels=[32, 64, 128, 256],
        out_channels=64,
        norm_cfg=dict(type='GN', num_groups=16),
    ),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=3),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=1000, max_per_img=300),
        rcnn=dict(sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)
