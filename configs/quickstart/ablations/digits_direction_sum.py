# As digits_direction.py with the plain sum over layers and directions, weight 1.
_base_ = './digits_full.py'

model = dict(
    terms=dict(
        layer=None,
        direction=dict(
            weight=1.0,
            weighting=dict(_delete_=True, type='mmtransmamba.UniformWeighting'),
        ),
    )
)
