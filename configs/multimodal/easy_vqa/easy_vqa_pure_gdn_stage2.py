_base_ = './easy_vqa_hybrid_stage2.py'

model = dict(student=dict(path='work_dirs/easy_vqa_pure_gdn_stage1/student'))
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook'),
    dict(type='mmtransmamba.ProgressBarHook', title='Gated DeltaNet, stage 2'),
]
