# Generated clips of 4 frames of 32x32 pixels with captions; needs no download. The
# attribute combinations of the test clips do not occur in training clips.
tokenizer = dict(type='mmtransmamba.ShapesTokenizer')
# For video files: the pipeline with which tools/retrieve.py builds an index.
test_pipeline = [
    dict(type='mmtransmamba.DecodeVideo', num_frames=4),
    dict(type='mmaction.Resize', scale=(-1, 32)),
    dict(type='mmaction.CenterCrop', crop_size=32),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
]
collate = dict(type='mmtransmamba.collate_video_text')

data_preprocessor = dict(type='mmtransmamba.RetrievalDataPreprocessor')
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.MovingShapes',
        split='train',
        num_videos=1024,
        captions_per_video=1,
        num_frames=4,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=collate,
    drop_last=True,
)
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.MovingShapes',
        split='test',
        num_videos=288,
        captions_per_video=2,
        num_frames=4,
        test_mode=True,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=collate,
)
val_evaluator = dict(type='mmtransmamba.TextVideoRetrievalMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
