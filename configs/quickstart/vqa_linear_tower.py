# The tower without attention: converted, it learns the content of the cells again.
_base_ = './vqa_tower.py'

model = dict(
    config=None,
    path='work_dirs/vqa_tower/model',
    convert=dict(layers='evenly', ratio=1.0, mixer='Mamba2', init='mimic'),
)
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook', folder='model'),
    dict(type='mmtransmamba.ProgressBarHook', title='linear vision tower'),
]
