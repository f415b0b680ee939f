# The control: the same pure student learns from the labels alone, for as many
# iterations as the three stages. It has the same vision tower; language model and
# projector are randomly initialised.
_base_ = './easy_vqa_teacher.py'

model = dict(
    convert=dict(layers='evenly', ratio=1.0, init='scratch'),
    requires='init:scratch',
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_iters=500, val_interval=500)
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook', folder='model'),
    dict(type='mmtransmamba.ProgressBarHook', title='pure Mamba, from scratch'),
]
