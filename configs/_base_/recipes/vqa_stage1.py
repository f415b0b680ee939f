# mmMamba's hybrid: the first of every four layers keeps attention. Its first stage
# trains the parameters that attention does not have. Data and paths come from the data
# set.
_base_ = [
    '../models/vqa_mmmamba.py',
    '../schedules/vqa.py',
    '../iter_language_runtime.py',
]

param_scheduler = dict(warmup=0.1, decay=0.3)
train_cfg = dict(max_iters=100, val_interval=100)
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook'),
    dict(type='mmtransmamba.ProgressBarHook', title='hybrid, stage 1'),
]
