# mmMamba's first stage from a LLaVA to a hybrid: the first of every four layers keeps
# attention. The paths are those of the data set.
model = dict(
    type='mmtransmamba.LanguageDistiller',
    stage='stage1',
    student=dict(
        type='mmtransmamba.VisionLanguageModel',
        convert=dict(layers='interleaved', ratio=0.75, init='mimic'),
    ),
    teacher=dict(type='mmtransmamba.VisionLanguageModel'),
    head=dict(type='mmtransmamba.AnswerHead', max_new_tokens=4),
    terms=dict(mixer=dict(type='mmtransmamba.MixerOutputTerm')),
)
