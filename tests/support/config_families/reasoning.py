"""LLaVAs that reason before they answer, and their students."""

import json
import re
from pathlib import Path

from config_runs import (
    LOADERS,
    batches_of,
    conversion_of,
    convertible,
    in_float32,
    teacher_of,
)
from mmengine.evaluator import Evaluator
from tiny_vlms import save_tiny_llava, tiny_processor

from config_families.base import Family
from config_families.llava import HISTORIES, count_llava
from mmtransmamba.datasets.shapes_reasoning import write_shapes_reasoning
from mmtransmamba.models.folders import load_vlm
from mmtransmamba.transfer.convert import convert
from mmtransmamba.utils.reasoning_text import STOP

SIZES = dict(tie_word_embeddings=True, max_position_embeddings=1024)
FOLDERS = {'reasoning-sft': 'sft', 'shapes_teacher': 'sft', 'llava_finetune': 'llava'}


class Reasoning(Family):
    patterns = ('multimodal/reasoning/*.py',)
    # So small a Mamba-1 gives these gradients below Adam's epsilon.
    # LLaVA reads the second to last layer of a tower.
    still = ('.dt_proj.', 'encoder.layers.1.', 'post_layernorm', '.k_proj.bias')

    def write(self, root):
        write_shapes_reasoning(
            root, dict(teacher=4, student=4, train=4, val=4), side=16
        )
        save_tiny_llava(root / 'llava', **SIZES)
        llava = load_vlm(str(root / 'llava'))
        hybrid, _ = convert(llava, layers=[3], init='subclone')
        for name, model, history in (
            ('llava', llava, HISTORIES['done']),
            ('sft', llava, [*HISTORIES['done'], 'reasoning']),
            ('student', hybrid, [*HISTORIES['done'], 'init:subclone', 'transmamba']),
        ):
            model.config.text_config.transfer_history = history
            model.save_pretrained(root / name)
            tiny_processor().save_pretrained(root / name)

    def shrink(self, cfg, root):
        def tiny(path):
            kinds = [*FOLDERS, 'llava-mamba', 'data/shapes_reasoning']
            kind = re.search('|'.join(kinds), path)[0]
            return str(root / FOLDERS.get(kind, 'student'))

        for key in LOADERS:
            loader = cfg[key]
            loader.update(batch_size=2, num_workers=0)
            loader.dataset.files = str(root / Path(loader.dataset.files).name)
            loader.dataset.processor = tiny(loader.dataset.processor)
            loader.dataset.pop('image_root', None)
            if 'batch_size' in loader.sampler:
                loader.sampler.batch_size = 2
        model = cfg.model
        for part in (model, model.get('student', {}), model.get('teacher', {})):
            for key in {'path', 'processor'} & set(part):
                part[key] = tiny(part[key])
        model.head.max_new_tokens = 8
        return in_float32(convertible(cfg))

    def batches(self, cfg):
        batches = super().batches(cfg)
        assert batches[0]['pixel_values'].shape[0] == 2
        return batches

    def check_training(self, name, cfg, model, steps):
        assert 'terms' in cfg.model or 'loss_task' in steps.losses
        stage = cfg.model.get('stage')
        assert stage is None or not any('vision_tower' in key for key in steps.trained)

    def check_testing(self, name, cfg, model):
        rows, evaluator = [], Evaluator(cfg.test_evaluator)
        for batch in batches_of(cfg.test_dataloader):
            rows += model.eval().test_step(batch)
            evaluator.process(rows[-len(batch['answers']) :], batch)
        figures = evaluator.evaluate(len(rows))
        assert len(rows) == 4 and all(row['answer'].endswith(STOP) for row in rows)
        assert all(len(row['text']) <= 8 for row in rows)
        assert figures['reasoning/well_formed'] == figures['reasoning/accuracy'] == 0
        assert figures['reasoning/no_answer'] == 100

    def count_parameters(self, cfg):
        teacher = teacher_of(cfg.filename.rpartition('_')[2])
        return count_llava(teacher, json.dumps(conversion_of(cfg), sort_keys=True))
