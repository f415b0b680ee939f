# DiDeMo, paragraph retrieval: a video's descriptions, joined, are its one caption.
# tools/dataset_converters/didemo.py makes the JSON files of the official ones.
_base_ = './msrvtt.py'

# Paragraphs are longer; 64 is CLIP4Clip's number of words.
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
