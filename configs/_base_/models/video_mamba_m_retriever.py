# VideoMamba-M with weights pre-trained on Kinetics-400, and the text tower tuned by
# CLIP4Clip.
_base_ = './clip4clip_vit_b32.py'

model = dict(
    _delete_=True,
    type='mmtransmamba.VideoMambaRetriever',
    backbone=dict(
        type='mmtransmamba.VideoMamba',
        arch='middle',
        img_size=224,
        num_frames=12,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/videomamba_m16_k400_f16_res224.pth',
        ),
    ),
    clip=_base_.clip,
    frozen_text=False,
)
