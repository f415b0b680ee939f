# VideoMamba of Table V, MSR-VTT.
_base_ = [
    '../_base_/models/video_mamba_m_retriever.py',
    '../_base_/datasets/msrvtt.py',
    '../_base_/schedules/adamw_retrieval_5e.py',
    '../_base_/default_runtime.py',
]

model = dict(text_checkpoint='checkpoints/clip4clip-vit-b32_msrvtt.pth')
