# MSR-VTT, 9k / 1k-A: 180,000 pairs for training, 1,000 videos with one caption each for
# testing. tools/dataset_converters/msrvtt.py creates the JSON files from the official
# ones. Frames, words and size follow CLIP4Clip.
tokenizer = dict(
    type='mmtransmamba.CLIPTextTokenizer',
    name='checkpoints/clip-vit-base-patch32',
    max_length=32,
)
collate = dict(type='mmtransmamba.collate_video_text')
frames = [
    dict(type='mmaction.Resize', scale=(-1, 224), interpolation='bicubic'),
    dict(type='mmaction.CenterCrop', crop_size=224),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
]
train_pipeline = [
    dict(type='mmtransmamba.DecodeVideo', num_frames=12, jitter=True),
    *frames,
]
test_pipeline = [dict(type='mmtransmamba.DecodeVideo', num_frames=12), *frames]

data_root = 'data/msrvtt'
data_preprocessor = dict(type='mmtransmamba.RetrievalDataPreprocessor')
train_dataloader = dict(
    batch_size=32,  # on each of four GPUs
    num_workers=8,
    dataset=dict(
        type='mmtransmamba.VideoText',
        data_root=data_root,
        ann_file='train_9k.json',
        data_prefix=dict(video='videos'),
        tokenizer=tokenizer,
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=collate,
    drop_last=True,
)
val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        type='mmtransmamba.VideoText',
        data_root=data_root,
        ann_file='test_1k_A.json',
        data_prefix=dict(video='videos'),
        tokenizer=tokenizer,
        pipeline=test_pipeline,
        test_mode=True,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=collate,
)
val_evaluator = dict(type='mmtransmamba.TextVideoRetrievalMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
