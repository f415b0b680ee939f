# Table VII: adaptively weighted layers, final feature and logits.
_base_ = '../trans-plain-mamba-t_1xb128_in100.py'

model = dict(
    terms=dict(
        direction=None,
        layer=dict(
            type='mmtransmamba.LayerTerm',
            weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
        ),
    )
)
