# A student converted from the ViT of digits_vit_teacher.py. The stage and its terms
# come from a recipe.
folder = 'work_dirs/digits_vit_teacher/model'
model = dict(
    type='mmtransmamba.MultiDirectionDistiller',
    student=dict(type='mmtransmamba.EncoderClassifier', path=folder),
    teacher=dict(
        type='mmtransmamba.TransformersTeacher', model=folder, mean=[77.0], std=[95.0]
    ),
)
