# TransVideoMamba of Table V, MSR-VTT.
_base_ = [
    '../_base_/models/trans_video_mamba_m.py',
    '../_base_/datasets/msrvtt.py',
    '../_base_/schedules/adamw_retrieval_5e.py',
    '../_base_/default_runtime.py',
]

checkpoint = 'checkpoints/clip4clip-vit-b32_msrvtt.pth'
model = dict(
    student=dict(text_checkpoint=checkpoint), teacher=dict(checkpoint=checkpoint)
)
