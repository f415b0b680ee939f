# No attention is left.
_base_ = './easy_vqa_hybrid_stage1.py'

model = dict(student=dict(convert=dict(layers='evenly', ratio=1.0)))
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook'),
    dict(type='mmtransmamba.ProgressBarHook', title='pure Mamba, stage 1'),
]
