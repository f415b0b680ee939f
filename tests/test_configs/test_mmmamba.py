"""mmMamba's three stages one after another, and what they train."""

import pytest
import torch
from config_families import FAMILY_OF
from config_families.patch_decoders import PatchDecoders, parts
from config_runs import load, logged, run
from transformers import AutoModelForImageTextToText, AutoProcessor, LlamaConfig

from mmtransmamba.models.language import MAMBA
from mmtransmamba.models.multimodal import (
    PatchDecoderConfig,
    PatchDecoderForConditionalGeneration,
)
from mmtransmamba.models.trainable.stages import (
    STAGES,
    StageError,
    group_of_parameters,
)
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.convert import Conversion, hybrid_config

CONFIGS = PatchDecoders().configs()


def test_every_kind_has_its_three_stages():
    assert [parts(name) for name in CONFIGS] == [
        (kind, stage) for kind in ('hybrid', 'linear') for stage in (1, 2, 3)
    ]


@pytest.mark.parametrize('kind', ['hybrid', 'linear'])
def test_the_three_stages_one_after_another(kind, shrunk, folder_of, tmp_path):
    """Each starts from the folder that the one before left, and its loss falls."""
    folder = None
    for stage in (1, 2, 3):
        (name,) = (name for name in CONFIGS if parts(name) == (kind, stage))
        cfg = shrunk(name)
        if folder is not None:
            cfg.model.student.path = str(folder)
        cfg.train_cfg.update(max_iters=40, val_interval=40)
        # A tiny model needs larger steps than one of billions of parameters.
        cfg.optim_wrapper.optimizer.lr = 0.01 if stage < 3 else 0.002
        cfg.default_hooks.logger.interval = 1
        cfg.default_hooks.checkpoint.interval = 40
        cfg.randomness = dict(seed=0)
        work_dir = tmp_path / str(stage)
        run(cfg, work_dir)
        records = logged(work_dir)
        losses = [record['loss'] for record in records if 'loss' in record]
        assert len(losses) == 40
        assert sum(losses[-8:]) < 0.8 * sum(losses[:8]), (stage, losses)
        rates = [record['lr'] for record in records if 'lr' in record]
        assert rates[-1] == 0
        if stage < 3:
            # The folder is not a start for this stage, nor for the last one.
            wrong = dict(cfg.model, stage='stage3' if stage == 1 else 'stage2')
            wrong['student'] = dict(
                type='mmtransmamba.VisionLanguageModel',
                path=str(work_dir / 'student'),
            )
            with pytest.raises(StageError, match=f'> stage{stage}'):
                MODELS.build(wrong)
        folder = work_dir / 'student'
    student = AutoModelForImageTextToText.from_pretrained(folder)
    text = student.config.get_text_config()
    assert text.transfer_history == ['init:mimic', 'stage1', 'stage2', 'stage3']
    assert text.layer_types.count(MAMBA) == (3 if kind == 'hybrid' else 4)
    assert AutoProcessor.from_pretrained(folder).patch_size == 8
    # Frozen tensors are the teacher's to the last bit.
    teacher = AutoModelForImageTextToText.from_pretrained(
        folder_of(FAMILY_OF[name]) / 'teacher'
    )
    kept = teacher.state_dict()
    for key, tensor in student.state_dict().items():
        if 'self_attn' not in key:
            assert torch.equal(tensor, kept[key]), key
        if key.endswith('self_attn.out_proj.weight'):
            assert torch.equal(tensor, kept[key.replace('out_proj', 'o_proj')]), key


def test_as_many_parameters_are_trained_as_the_paper_says():
    """Table 1: 14.7 % and 11.2 % of 2.7B, with the widths of InternLM2-1.8B."""
    text = LlamaConfig(
        vocab_size=92553,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=32,
        num_attention_heads=16,
        num_key_value_heads=8,
    )
    for kind, percent in (('linear', 14.7), ('hybrid', 11.2)):
        convert = load(
            f'multimodal/mmmamba/{kind}_stage1_8xb16_hovle-2.6b.py'
        ).model.student.convert
        config = PatchDecoderConfig(
            text_config=hybrid_config(text, Conversion.of(**convert))
        )
        with torch.device('meta'):
            model = PatchDecoderForConditionalGeneration(config)
        groups = group_of_parameters(model)
        trained = sum(
            parameter.numel()
            for name, parameter in model.named_parameters()
            if groups[name] in STAGES['stage3'].trains
        )
        assert 100 * trained / 2.7e9 == pytest.approx(percent, abs=0.3)
