# The student alone on 30 of the 1,200 training digits, three of each class.
_base_ = [
    '../_base_/models/plain_mamba_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits.py',
    '../_base_/digits_runtime.py',
]

train_dataloader = dict(
    batch_size=30,
    dataset=dict(
        _delete_=True,
        type='mmtransmamba.Subset',
        proportion=0.025,
        seed=0,
        dataset=_base_.train_dataloader.dataset,
    ),
)
custom_hooks = [dict(type='mmtransmamba.ProgressBarHook', title='scratch')]
