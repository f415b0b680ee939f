# mmMamba's hybrid: the first of every four layers keeps attention. Its first stage
# trains the parameters that attention does not have.
_base_ = [
    '../_base_/models/vqa_mmmamba.py',
    '../_base_/datasets/shapes_vqa.py',
    '../_base_/schedules/vqa.py',
    '../_base_/iter_language_runtime.py',
]

model = dict(
    student=dict(path='work_dirs/vqa_teacher/model'),
    teacher=dict(path='work_dirs/vqa_teacher/model'),
)
param_scheduler = dict(warmup=0.1, decay=0.3)
train_cfg = dict(max_iters=100, val_interval=100)
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook'),
    dict(type='mmtransmamba.ProgressBarHook', title='hybrid, stage 1'),
]
