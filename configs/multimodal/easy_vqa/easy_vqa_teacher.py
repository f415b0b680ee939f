# The teacher: a LLaVA with the frozen tower and a Llama with random weights. When
# trained along, the tower forgot shapes.
_base_ = [
    '../../_base_/datasets/easy_vqa.py',
    '../../_base_/schedules/vqa.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    type='mmtransmamba.VisionLanguageModel',
    stage='llava_finetune',
    requires='init:llava',
    vision='work_dirs/easy_vqa_tower/model',
    language='data/easy_vqa/start',
    head=dict(type='mmtransmamba.AnswerHead', max_new_tokens=4),
)
# At twice this rate, the loss stays on a plateau; at this rate, it leaves the plateau
# after about a third of the training.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_iters=3000, val_interval=3000)
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook', folder='model'),
    dict(type='mmtransmamba.ProgressBarHook', title='teacher'),
]
