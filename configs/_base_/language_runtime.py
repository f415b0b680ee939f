# Models and metrics for language; nothing here comes from mmpretrain.
_base_ = './default_runtime.py'

default_scope = 'mmengine'
default_hooks = dict(
    _delete_=True,
    logger=dict(type='LoggerHook', interval=100),
    checkpoint=dict(type='mmtransmamba.CheckpointHook', interval=1, max_keep_ckpts=3),
    teacher=dict(type='mmtransmamba.TeacherCheckHook'),
    non_finite=dict(type='mmtransmamba.NonFiniteHook'),
)
custom_hooks = [dict(type='mmtransmamba.SaveStudentHook')]
visualizer = dict(type='Visualizer')
