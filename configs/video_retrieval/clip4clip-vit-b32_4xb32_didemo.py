# The teacher for DiDeMo. CLIP's parameters use a rate of 1e-7, as in CLIP4Clip.
_base_ = [
    '../_base_/models/clip4clip_vit_b32.py',
    '../_base_/datasets/didemo.py',
    '../_base_/schedules/adamw_retrieval_5e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(
    optimizer=dict(weight_decay=0.2),
    paramwise_cfg=dict(
        custom_keys=dict(frame_encoder=dict(lr_mult=1e-3), contrast=dict(lr_mult=1e-3))
    ),
)
