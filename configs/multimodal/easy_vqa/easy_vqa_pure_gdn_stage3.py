_base_ = './easy_vqa_hybrid_stage3.py'

model = dict(student=dict(path='work_dirs/easy_vqa_pure_gdn_stage2/student'))
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook'),
    dict(type='mmtransmamba.ProgressBarHook', title='Gated DeltaNet, stage 3'),
]
