_base_ = [
    '../_base_/datasets/shapes_vqa.py',
    '../_base_/recipes/vqa_stage1.py',
]

model = dict(
    student=dict(path='work_dirs/vqa_teacher/model'),
    teacher=dict(path='work_dirs/vqa_teacher/model'),
)
