# The teacher: a LLaVA with the tower and a Llama with random weights; all parameters
# are trained.
_base_ = [
    '../_base_/datasets/shapes_vqa.py',
    '../_base_/schedules/vqa.py',
    '../_base_/iter_language_runtime.py',
]

model = dict(
    type='mmtransmamba.VisionLanguageModel',
    vision='work_dirs/vqa_tower/model',
    language='data/shapes_vqa',
    head=dict(type='mmtransmamba.AnswerHead', max_new_tokens=4),
)
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook', folder='model'),
    dict(type='mmtransmamba.ProgressBarHook', title='teacher'),
]
