# easy-VQA: 4,000 pictures of one coloured shape with 38,575 questions for training, and
# 1,000 with 9,673 for testing. tools/dataset_converters/word_vqa.py writes
# data/easy_vqa/start. Validation uses a part of the test questions, tools/test.py all
# of them.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.EasyVQA',
        data_root='data/easy_vqa',
        processor='data/easy_vqa/start',
        split='train',
    ),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
test_dataloader = dict(
    batch_size=100,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.EasyVQA',
        data_root='data/easy_vqa',
        processor='data/easy_vqa/start',
        split='test',
        prompts=True,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_dataloader = dict(
    test_dataloader, dataset=dict(test_dataloader['dataset'], max_questions=1000)
)
val_evaluator = dict(type='mmtransmamba.AnswerAccuracy')
test_evaluator = val_evaluator
