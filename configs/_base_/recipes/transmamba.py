# TransMamba, Section 4.2: the layers are distilled from the teacher's, weighted by the
# meta-network. A config takes the recipe of the model with
# `model = _base_.pop('transmamba')`.
_base_ = ['../schedules/transmamba_lm.py', '../language_runtime.py']

transmamba = dict(
    stage='transmamba',
    student=dict(
        convert=dict(
            ratio=1.0, init='subclone', mamba_checkpoint='checkpoints/mamba-1.4b'
        ),
    ),
    # Eq. 12 with alpha = 0.5.
    terms=dict(
        task=dict(type='mmtransmamba.NextTokenTerm', weight=0.5),
        hidden=dict(
            type='mmtransmamba.HiddenStatesTerm',
            weight=0.5,
            weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
        ),
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='mmtransmamba.LayerWeightsHook')]
