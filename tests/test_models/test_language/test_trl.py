"""Supervised fine-tuning of a hybrid by TRL."""

import pytest
import torch
from byte_tokenizer import OFFSET, write_tokenizer
from language_models import make_hybrid, make_teacher

import mmtransmamba

STEPS = 5


@pytest.mark.parametrize('given', ['a model', 'its folder'])
def test_five_steps_train_a_hybrid(given, tmp_path):
    trl = pytest.importorskip('trl')
    datasets = pytest.importorskip('datasets')
    teacher = make_teacher(vocab_size=256 + OFFSET, max_position_embeddings=64)
    hybrid = make_hybrid(teacher, init='vkq')
    hybrid.save_pretrained(tmp_path / 'hybrid')
    tokenizer = write_tokenizer(tmp_path / 'hybrid')
    tokenizer.pad_token = tokenizer.eos_token
    rows = [dict(text=f'{i} and {i} are {2 * i}') for i in range(10)]
    settings = trl.SFTConfig(
        str(tmp_path / 'trained'),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        logging_steps=STEPS,
        report_to='none',
        use_cpu=True,
        bf16=False,
    )
    trainer = trl.SFTTrainer(
        hybrid if given == 'a model' else str(tmp_path / 'hybrid'),
        settings,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    assert trainer.train().global_step == STEPS
    trainer.save_model()
    saved = mmtransmamba.load(tmp_path / 'trained')
    assert saved.config.mamba_layers == [0, 2]
    before = mmtransmamba.load(tmp_path / 'hybrid').state_dict()
    trained = saved.state_dict()
    name = 'model.layers.0.self_attn.x_proj.weight'
    assert not torch.equal(trained[name].float(), before[name].float())
