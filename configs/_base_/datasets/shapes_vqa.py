# Generated pictures of one to four coloured shapes with questions; needs no download.
# tools/dataset_converters/word_vqa.py writes data/shapes_vqa. No test scene is in the
# training set. Questions about the relative position of two shapes ('relation') are
# left out, because they take several times as long to learn.
categories = ('colour', 'shape', 'place', 'count', 'exists')
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.ShapesVQA',
        processor='data/shapes_vqa',
        split='train',
        num_scenes=8000,
        questions_per_scene=4,
        categories=categories,
    ),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.ShapesVQA',
        processor='data/shapes_vqa',
        split='test',
        num_scenes=600,
        questions_per_scene=2,
        categories=categories,
        prompts=True,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_evaluator = dict(type='mmtransmamba.AnswerAccuracy')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
