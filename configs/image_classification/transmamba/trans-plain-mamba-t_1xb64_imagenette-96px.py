# The same student on 75 % of the images, under DeiT-Tiny of ImageNet-1k, which sees
# them enlarged to 224 pixels and is asked for the ten classes alone.
_base_ = '../plain_mamba/plain-mamba-t_1xb64_imagenette-96px.py'

model = dict(
    _delete_=True,
    type='mmtransmamba.MultiDirectionDistiller',
    student=_base_.model,
    teacher=dict(
        type='mmtransmamba.TransformersTeacher',
        model='data/deit_tiny',
        input_size=224,
        class_order='names',
    ),
    terms=dict(
        logits=dict(type='mmtransmamba.LogitsTerm'),
        feature=dict(type='mmtransmamba.FeatureTerm'),
        direction=dict(
            type='mmtransmamba.DirectionTerm',
            weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
        ),
    ),
    alpha=0.5,
)
train_dataloader = dict(dataset=dict(proportion=0.75))
custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer', weight_map='vit_to_plainmamba'),
    dict(type='mmtransmamba.LayerWeightsHook'),
]
