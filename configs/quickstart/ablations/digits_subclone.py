# Subcloning alone: the student inherits weights and is not distilled.
_base_ = '../digits_scratch.py'

custom_hooks = [
    dict(
        type='mmtransmamba.SubcloneInitializer',
        teacher=dict(
            type='mmtransmamba.MMPretrainTeacher',
            model='{{fileDirname}}/../digits_teacher.py',
            checkpoint='work_dirs/digits_teacher/epoch_150.pth',
        ),
    ),
    dict(type='mmtransmamba.ProgressBarHook', title='subclone'),
]
