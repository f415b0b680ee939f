# The loss of the TransMamba authors' released code: cross-entropy between softmaxes
# over feature channels, the final feature 120 times, block i of the first eleven i
# times; no logits, no directions, no learned weights, no inherited parameters.
_base_ = './trans_plain_mamba_t.py'

channel_loss = dict(type='mmtransmamba.ChannelCrossEntropy', temperature=2.0)
model = dict(
    terms=dict(
        _delete_=True,
        feature=dict(
            type='mmtransmamba.FeatureTerm',
            weight=120.0,
            loss=channel_loss,
            align=False,
        ),
        layer=dict(
            type='mmtransmamba.PooledLayerTerm',
            loss=channel_loss,
            weighting=dict(type='mmtransmamba.LayerIndexWeighting', normalize=False),
        ),
    ),
    alpha=1.0,
    distill_weight=1.0,
)

custom_hooks = [
    dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL'),
    dict(type='mmtransmamba.LayerWeightsHook'),
]
