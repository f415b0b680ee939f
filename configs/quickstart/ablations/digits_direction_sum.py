# As digits_direction.py with the plain sum over layers and directions, weight 1.
_base_ = '../digits_transfer.py'

model = dict(
    terms=dict(
        layer=None,
        direction=dict(
            weight=1.0,
            weighting=dict(_delete_=True, type='mmtransmamba.UniformWeighting'),
        ),
    )
)
custom_hooks = [
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
    dict(
        type='mmtransmamba.TermDecayHook',
        terms=['feature', 'direction'],
        end=0.6,
    ),
]
