# No attention is left; Gated DeltaNet replaces it, seeded as the mixers of Mamba-2.
_base_ = './easy_vqa_pure_stage1.py'

model = dict(student=dict(convert=dict(mixer='GatedDeltaNet')))
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook'),
    dict(type='mmtransmamba.ProgressBarHook', title='Gated DeltaNet, stage 1'),
]
