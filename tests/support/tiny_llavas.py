"""LLaVAs around hybrids, and folders of what one is put together from."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from tiny_decoders import FAMILIES, tiny_teacher
from tiny_vlms import IMAGE_SIZE, PATCH_SIZE, tiny_processor, tiny_tokenizer
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPImageProcessor,
    CLIPVisionConfig,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from mmtransmamba.models.language import ATTENTION, MAMBA
from mmtransmamba.models.multimodal import (
    HybridLlavaConfig,
    HybridLlavaForConditionalGeneration,
)

LAYOUTS = {
    'attention first': [ATTENTION, MAMBA, MAMBA],
    'mamba first': [MAMBA, ATTENTION, MAMBA],
    'pure': [MAMBA] * 3,
}
VOCAB = len(tiny_tokenizer())
IMAGE = tiny_tokenizer().convert_tokens_to_ids('<image>')
PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2
TOWER = dict(
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=IMAGE_SIZE,
    patch_size=PATCH_SIZE,
)
TOWERS = {'clip': CLIPVisionConfig, 'siglip': SiglipVisionConfig}


def enlarge(model: nn.Module) -> nn.Module:
    """Weights so large that every part matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


def hybrid_llava(
    family: str = 'llama', layout: str = 'mamba first', tower: str = 'clip', **text
) -> nn.Module:
    """A LLaVA whose decoder is a hybrid, with random weights."""
    fields = dict(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        layer_types=LAYOUTS[layout],
    )
    config = HybridLlavaConfig(
        vision_config=TOWERS[tower](**TOWER),
        text_config=AutoConfig.for_model(
            f'hybrid_{family}', **fields | FAMILIES[family] | text
        ),
        image_token_index=IMAGE,
        image_seq_length=PATCHES,
        vision_feature_select_strategy='default' if tower == 'clip' else 'full',
        lm_head_bias=family == 'phi',
    )
    torch.manual_seed(0)
    return enlarge(HybridLlavaForConditionalGeneration(config).eval())


def prompts(
    lengths=(3, 9), side: str = 'left', seed: int = 1, image: int = IMAGE
) -> dict[str, Tensor]:
    """A batch of prompts with an image each, padded to the longest."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths) + PATCHES + 1
    ids = torch.zeros(len(lengths), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, length in enumerate(lengths):
        words = torch.randint(5, VOCAB - 1, (length,), generator=generator)
        row = torch.cat((torch.tensor([1] + [image] * PATCHES), words))
        where = slice(-len(row), None) if side == 'left' else slice(0, len(row))
        ids[i, where], mask[i, where] = row, 1
    pixels = torch.randn(len(lengths), 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    return dict(input_ids=ids, attention_mask=mask, pixel_values=pixels)


def learning_batch(
    lengths=(6, 9), images: bool = True, seed: int = 1
) -> dict[str, Tensor]:
    """A batch to learn from: words are learned, images and padding are not."""
    batch = prompts(lengths, 'right', seed)
    labels = batch['input_ids'].clone()
    labels[(batch['attention_mask'] == 0) | (labels == IMAGE)] = -100
    labels[:, 0] = -100
    if not images:
        del batch['pixel_values']
        batch['input_ids'][batch['input_ids'] == IMAGE] = 7
    return batch | dict(labels=labels)


def save_tower(folder: str | Path, kind: str = 'clip') -> str:
    """A folder of a vision tower and its image processor."""
    torch.manual_seed(3)
    enlarge(AutoModel.from_config(TOWERS[kind](**TOWER))).save_pretrained(folder)
    size = {'height': IMAGE_SIZE, 'width': IMAGE_SIZE}
    if kind == 'clip':
        processor = CLIPImageProcessor(size=size, crop_size=size)
    else:
        processor = SiglipImageProcessor(size=size)
    processor.save_pretrained(folder)
    return str(folder)


def save_language_model(folder: str | Path, family: str = 'llama', **fields) -> str:
    """A folder of a language model and a tokenizer that knows no images."""
    fields = dict(vocab_size=VOCAB - 1) | fields
    tiny_teacher(family, **fields).save_pretrained(folder)
    text_tokenizer().save_pretrained(folder)
    return str(folder)


def text_tokenizer():
    """The tiny tokenizer without its image token and its chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = tiny_tokenizer().get_vocab()
    del known['<image>']
    vocab = {token: i for i, token in enumerate(sorted(known, key=known.__getitem__))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token='<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex('[\\s\\S]'), 'isolated')
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token='<s>',
        eos_token='</s>',
        unk_token='<unk>',
    )


def question_batch(texts, answers=None, side='left') -> dict:
    """Questions about plain images, as a data loader gives them."""
    processor = tiny_processor()
    processor.tokenizer.padding_side = side
    chats = [
        [
            {
                'role': 'user',
                'content': [{'type': 'image'}, {'type': 'text', 'text': text}],
            }
        ]
        for text in texts
    ]
    prompted = [
        processor.apply_chat_template(chat, add_generation_prompt=True)
        for chat in chats
    ]
    images = [Image.new('RGB', (20, 20), (40 * i, 0, 99)) for i, _ in enumerate(texts)]
    batch = processor(text=prompted, images=images, padding=True, return_tensors='pt')
    return dict(batch) | dict(
        answers=list(answers or texts),
        question_ids=[str(i) for i, _ in enumerate(texts)],
        categories=['any'] * len(texts),
    )
