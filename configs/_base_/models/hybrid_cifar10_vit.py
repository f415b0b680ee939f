# A student converted from the ViT for CIFAR-10 that tools/studies/cifar10_teacher.py
# trains, as a folder of transformers: tools/studies/convert_vit.py writes it as
# cifar10_teacher in its work dir. The stage and its terms come from a recipe.
folder = 'data/cifar10_vit'
model = dict(
    type='mmtransmamba.MultiDirectionDistiller',
    student=dict(type='mmtransmamba.EncoderClassifier', path=folder),
    teacher=dict(
        type='mmtransmamba.TransformersTeacher',
        model=folder,
        mean=[125.307, 122.961, 113.8575],
        std=[51.5865, 50.847, 51.255],
    ),
)
