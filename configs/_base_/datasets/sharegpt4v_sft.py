# ShareGPT4V's 665K conversations: LLaVA-1.5's, with 23K captions written by GPT-4V.
_base_ = './llava_mix665k.py'

train_dataloader = dict(
    dataset=dict(
        files='data/ShareGPT4V/sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json',
        image_root='data/ShareGPT4V/images',
        format='sharegpt4v',
    ),
)
val_dataloader = dict(
    dataset=dict(
        files='data/ShareGPT4V/val.json',
        image_root='data/ShareGPT4V/images',
        format='sharegpt4v',
    ),
)
test_dataloader = val_dataloader
