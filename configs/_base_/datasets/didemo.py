# DiDeMo, paragraph retrieval: a video's joined descriptions are its single caption.
# tools/dataset_converters/didemo.py creates the JSON files from the official ones.
_base_ = './msrvtt.py'

# Paragraphs are longer; CLIP4Clip uses 64 words.
tokenizer = dict(max_length=64)
data_root = 'data/didemo'
train_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file='train.json', tokenizer=dict(max_length=64)
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file='test.json', tokenizer=dict(max_length=64)
    )
)
test_dataloader = val_dataloader
