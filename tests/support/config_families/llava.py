"""LLaVA and its students: a tower, and a Llama or a Phi of four layers."""

import json
from functools import cache

from config_runs import (
    LOADERS,
    batches_of,
    conversion_of,
    convertible,
    count_on_meta,
    in_float32,
    teacher_of,
)
from PIL import Image
from tiny_llavas import save_language_model, save_tower
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    PhiConfig,
    SiglipVisionConfig,
)

from config_families.base import Family
from mmtransmamba.models.folders import assemble_llava
from mmtransmamba.models.multimodal import (
    HybridLlavaConfig,
    HybridLlavaForConditionalGeneration,
)
from mmtransmamba.transfer.convert import Conversion, hybrid_config

HISTORIES = {
    'llava_pretrain': ['init:llava'],
    'llava_finetune': ['init:llava', 'llava_pretrain'],
    'done': ['init:llava', 'llava_pretrain', 'llava_finetune'],
}
LLAMA = dict(
    vocab_size=128257,
    intermediate_size=8192,
    num_key_value_heads=8,
    tie_word_embeddings=True,
)
TEXTS = {
    'llama-3.2-1b': lambda: LlamaConfig(
        **LLAMA,
        hidden_size=2048,
        num_hidden_layers=16,
        num_attention_heads=32,
        head_dim=64,
    ),
    'llama-3.2-3b': lambda: LlamaConfig(
        **LLAMA,
        hidden_size=3072,
        num_hidden_layers=28,
        num_attention_heads=24,
        head_dim=128,
    ),
    'phi-2': lambda: PhiConfig(
        vocab_size=51200,
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
        partial_rotary_factor=0.4,
    ),
}
TOWERS = {
    'llama': lambda: CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    ),
    'phi': lambda: SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    ),
}


@cache
def count_llava(teacher: str, convert: str) -> int:
    """Parameters of a LLaVA in its real size; ``convert`` is JSON, of {} for none."""
    text, fields = TEXTS[teacher](), json.loads(convert)
    if fields:
        fields.pop('mamba_checkpoint', None)
        text = hybrid_config(text, Conversion.of(**fields))
    config = HybridLlavaConfig(
        text_config=text,
        vision_config=TOWERS[teacher.split('-')[0]](),
        lm_head_bias=teacher == 'phi-2',
    )
    return count_on_meta(lambda: HybridLlavaForConditionalGeneration(config))


class Llava(Family):
    patterns = tuple(
        f'multimodal/{each}/**/*.py' for each in ('llava', 'transmamba', 'matvlm')
    )
    # So small a Mamba-1 gives these gradients below Adam's epsilon. Of the last words
    # only some are in the batch.
    still = ('.dt_proj.', '.B_', '.C_')

    def write(self, root):
        for family, tower in (('llama', 'clip'), ('phi', 'siglip')):
            vision = save_tower(root / tower, tower)
            language = save_language_model(root / 'lm', family, num_hidden_layers=4)
            model, processor = assemble_llava(vision, language)
            for stage, history in HISTORIES.items():
                model.config.text_config.transfer_history = history
                model.save_pretrained(root / family / stage)
                processor.save_pretrained(root / family / stage)
        Image.new('RGB', (20, 20), (200, 30, 30)).save(root / 'red.png')
        rows = [
            {
                'id': str(i),
                'image': 'red.png',
                'conversations': [
                    {'from': 'human', 'value': '<image>\nWhat is it?'},
                    {'from': 'gpt', 'value': f'{i} red'},
                ],
            }
            for i in range(8)
        ]
        for row in rows[4:]:
            del row['image']
            row['conversations'][0]['value'] = 'Who?'
        (root / 'mixed.json').write_text(json.dumps(rows))
        (root / 'images.json').write_text(json.dumps(rows[:4]))

    def shrink(self, cfg, root):
        family = root / ('phi' if 'phi' in cfg.filename else 'llama')
        model = cfg.model
        if 'student' in model:
            model.teacher.path = model.student.path = processor = str(family / 'done')
        else:
            model.path = processor = str(family / model.stage)
        for key in LOADERS:
            cfg[key].update(batch_size=2, num_workers=0)
            if 'batch_size' in cfg[key].sampler:
                cfg[key].sampler.batch_size = 2
            captions = 'LLaVA-Pretrain' in cfg[key].dataset.files
            cfg[key].dataset.update(
                files=str(root / ('images.json' if captions else 'mixed.json')),
                image_root=str(root),
                processor=processor,
                cache_dir=str(root / 'index'),
            )
        return in_float32(convertible(cfg))

    def batches(self, cfg):
        batches = batches_of(cfg.train_dataloader)
        # Batches with images, and in the mixtures batches without.
        captions = cfg.model.get('stage') == 'llava_pretrain'
        kinds = {True} if captions else {True, False}
        assert {'pixel_values' in batch for batch in batches} == kinds
        return batches

    def may_stay(self, name, key):
        # Terms on layers alone give the connector no gradient.
        connector = 'table4_layer' in name and 'multi_modal_projector' in key
        return connector or super().may_stay(name, key)

    def check_training(self, name, cfg, model, steps):
        assert 'terms' in cfg.model or 'loss_task' in steps.losses
        assert not any('vision_tower' in key for key in steps.trained)

    def check_metrics(self, name, cfg, metrics):
        assert metrics['token/ppl'] > 1
        assert ('token/kl' in metrics) == ('student' in cfg.model)

    def count_parameters(self, cfg):
        teacher = teacher_of(cfg.filename.rpartition('_')[2])
        return count_llava(teacher, json.dumps(conversion_of(cfg), sort_keys=True))
