# Half of the teacher's layers become Mamba and learn to reason from it.
_base_ = [
    '../../_base_/datasets/shapes_reasoning.py',
    '../../_base_/schedules/stories260k.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    type='mmtransmamba.LanguageDistiller',
    stage='transmamba',
    student=dict(
        type='mmtransmamba.VisionLanguageModel',
        path='work_dirs/shapes_teacher/model',
        convert=dict(layers='high', ratio=0.5, init='subclone'),
    ),
    teacher=dict(
        type='mmtransmamba.VisionLanguageModel', path='work_dirs/shapes_teacher/model'
    ),
    head=dict(type='mmtransmamba.ReasoningHead', max_new_tokens=400),
    terms=dict(
        task=dict(type='mmtransmamba.NextTokenTerm', weight=0.5),
        hidden=dict(
            type='mmtransmamba.HiddenStatesTerm',
            weight=0.5,
            weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
        ),
        kl=dict(type='mmtransmamba.TokenKLTerm', weight=0.5),
    ),
)
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
train_cfg = dict(max_iters=500, val_interval=500)
