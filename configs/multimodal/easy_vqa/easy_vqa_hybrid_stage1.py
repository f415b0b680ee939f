# mmMamba's hybrid: the first of every four layers stays attention. Its first stage
# trains what the mixers have and attention has not.
_base_ = [
    '../../_base_/datasets/easy_vqa.py',
    '../../_base_/schedules/vqa.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    type='mmtransmamba.LanguageDistiller',
    stage='stage1',
    student=dict(
        type='mmtransmamba.VisionLanguageModel',
        path='work_dirs/easy_vqa_teacher/model',
        convert=dict(layers='interleaved', ratio=0.75, init='mimic'),
    ),
    teacher=dict(
        type='mmtransmamba.VisionLanguageModel', path='work_dirs/easy_vqa_teacher/model'
    ),
    head=dict(type='mmtransmamba.AnswerHead', max_new_tokens=4),
    terms=dict(mixer=dict(type='mmtransmamba.MixerOutputTerm')),
)
param_scheduler = dict(warmup=0.1, decay=0.3)
train_cfg = dict(max_iters=100, val_interval=100)
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook'),
    dict(type='mmtransmamba.ProgressBarHook', title='hybrid, stage 1'),
]
