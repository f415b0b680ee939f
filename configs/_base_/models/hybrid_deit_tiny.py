# A student converted from DeiT-Tiny of ImageNet-1k, a folder of transformers, for the
# ten classes of Imagenette. The stage and its terms come from a recipe.
folder = 'data/deit_tiny'
model = dict(
    type='mmtransmamba.MultiDirectionDistiller',
    student=dict(
        type='mmtransmamba.EncoderClassifier',
        path=folder,
        classes=[0, 217, 482, 491, 497, 566, 569, 571, 574, 701],
    ),
    teacher=dict(
        type='mmtransmamba.TransformersTeacher', model=folder, class_order='names'
    ),
)
