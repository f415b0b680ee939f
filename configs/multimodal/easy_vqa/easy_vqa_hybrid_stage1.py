_base_ = [
    '../../_base_/datasets/easy_vqa.py',
    '../../_base_/recipes/vqa_stage1.py',
]

model = dict(
    student=dict(path='work_dirs/easy_vqa_teacher/model'),
    teacher=dict(path='work_dirs/easy_vqa_teacher/model'),
)
