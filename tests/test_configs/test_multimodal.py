"""The chain of LLaVA's configs, each from the folder that the last one leaves."""

import torch
from config_families.llava import HISTORIES
from config_runs import run
from mmengine.runner import Runner
from transformers import AutoProcessor

from mmtransmamba.models.folders import load_vlm
from mmtransmamba.models.trainable.stages import history_of
from mmtransmamba.registry import MODELS


def test_from_two_folders_to_a_student(shrunk, tmp_path):
    """Pre-training, fine-tuning, distillation, each from the folder of the last."""
    last = None
    for name, model in (
        ('multimodal/llava/llava_pretrain_8xb32_clip-vit-l_llama-3.2-1b.py', 'model'),
        ('multimodal/llava/llava_finetune_8xb16_clip-vit-l_llama-3.2-1b.py', 'model'),
        (
            'multimodal/transmamba/llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-1b.py',
            'student',
        ),
    ):
        cfg = shrunk(name)
        if last is not None and model == 'model':
            cfg.model.path = last
        elif last is not None:
            cfg.model.student.path = cfg.model.teacher.path = last
        cfg.default_hooks.logger.interval = 1
        run(cfg, tmp_path / cfg.model.stage)
        before, last = last, f'{cfg.work_dir}/{model}'
        saved = load_vlm(last)
        assert history_of(saved)[-1] == cfg.model.stage
        processor = AutoProcessor.from_pretrained(last)
        assert '<image>' in processor.tokenizer.get_vocab()
        assert "USER: '" in processor.chat_template
    assert history_of(saved) == [
        *HISTORIES['done'],
        'init:subclone',
        'transmamba',
    ]
    teacher = load_vlm(before).state_dict()
    for key, value in saved.state_dict().items():
        if 'vision_tower' in key:
            assert torch.equal(value, teacher[key])

    # The student answers questions, with and without images in one batch.
    loader = Runner.build_dataloader(
        dict(
            batch_size=3,
            num_workers=0,
            dataset=cfg.test_dataloader.dataset | dict(processor=last, prompts=True),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='mmtransmamba.collate_conversations'),
        )
    )
    head = dict(type='mmtransmamba.AnswerHead', max_new_tokens=4)
    model = MODELS.build(
        dict(type='mmtransmamba.VisionLanguageModel', path=last, head=head)
    )
    predictions = [p for batch in loader for p in model.eval().test_step(batch)]
    assert [p['answer'] for p in predictions] == [f'{i} red' for i in range(8)]
    assert [p['question_id'] for p in predictions] == [str(i) for i in range(8)]
    assert all(len(p['text']) <= 4 for p in predictions)
