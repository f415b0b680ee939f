# The teacher: a LLaVA of the tower and a Llama with random weights, all trained.
_base_ = [
    '../../_base_/datasets/easy_vqa.py',
    '../../_base_/schedules/vqa.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    type='mmtransmamba.VisionLanguageModel',
    vision='work_dirs/easy_vqa_tower/model',
    language='data/easy_vqa/start',
    head=dict(type='mmtransmamba.AnswerHead', max_new_tokens=4),
)
train_cfg = dict(max_iters=1500, val_interval=1500)
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook', folder='model'),
    dict(type='mmtransmamba.ProgressBarHook', title='teacher'),
]
