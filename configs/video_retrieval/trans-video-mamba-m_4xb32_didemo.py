# TransVideoMamba of Table V, DiDeMo.
_base_ = [
    '../_base_/models/trans_video_mamba_m.py',
    '../_base_/datasets/didemo.py',
    '../_base_/schedules/adamw_retrieval_5e.py',
    '../_base_/default_runtime.py',
]

checkpoint = 'checkpoints/clip4clip-vit-b32_didemo.pth'
model = dict(
    student=dict(text_checkpoint=checkpoint), teacher=dict(checkpoint=checkpoint)
)
