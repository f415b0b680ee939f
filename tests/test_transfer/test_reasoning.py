"""Reasoning from data to score: a teacher learns it, and a hybrid from the teacher."""

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from tiny_vlms import save_tiny_llava

from mmtransmamba.datasets import ConversationDataset, collate_conversations
from mmtransmamba.datasets.shapes_reasoning import write_shapes_reasoning
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.reasoning_text import STOP

COUNT = 5
VLM = 'mmtransmamba.VisionLanguageModel'
HEAD = dict(type='mmtransmamba.ReasoningHead', max_new_tokens=220)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Data, and a model that has learned nothing."""
    folder = tmp_path_factory.mktemp('reasoning')
    write_shapes_reasoning(folder, dict(train=COUNT), rows=1, side=16)
    save_tiny_llava(
        folder / 'llava',
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    return folder


def batch_of(folder, prompts):
    data = ConversationDataset(
        str(folder / 'train.jsonl'),
        str(folder / 'llava'),
        format='llava_cot',
        prompts=prompts,
    )
    return collate_conversations([data[i] for i in range(COUNT)])


def train(model, folder, steps):
    torch.manual_seed(0)
    batch = batch_of(folder, prompts=False)
    optim_wrapper = build_optim_wrapper(
        model,
        dict(optimizer=dict(type='Adam', lr=4e-3), clip_grad=dict(max_norm=1.0)),
    )
    model.train()
    for _ in range(steps):
        model.train_step(batch, optim_wrapper)
    return model.eval()


def answer(model, folder):
    """Predictions, and the figures of both metrics."""
    rows = model.eval().test_step(batch_of(folder, prompts=True))
    metrics = ['mmtransmamba.ReasoningFormat', 'mmtransmamba.ReasoningAccuracy']
    evaluator = Evaluator([dict(type=name) for name in metrics])
    evaluator.process(rows)
    return rows, evaluator.evaluate(COUNT)


@pytest.fixture(scope='module')
def teacher(folder):
    """The teacher's folder, after supervised fine-tuning."""
    path = str(folder / 'llava')
    model = MODELS.build(dict(type=VLM, path=path, head=HEAD))
    _, before = answer(model, folder)
    assert before['reasoning/well_formed'] == before['reasoning/accuracy'] == 0
    model = train(model, folder, 100)
    model.lm.save_pretrained(folder / 'teacher')
    model.companions.save(folder / 'teacher')
    return model


def check(rows, figures):
    assert figures['reasoning/well_formed'] == 100
    assert figures['reasoning/accuracy'] == 100
    assert figures['reasoning/truncated'] == figures['reasoning/no_answer'] == 0
    # Rows of different length all end where they should.
    assert len({len(row['text']) for row in rows}) > 1
    for row in rows:
        assert row['text'].endswith(STOP) and row['text'] == row['answer']
        assert row['text'].endswith(f'<CONCLUSION> {row["prediction"]} {STOP}')


def test_a_teacher_learns_to_reason(teacher, folder):
    check(*answer(teacher, folder))


def test_a_hybrid_learns_it_from_the_teacher(teacher, folder, tmp_path):
    path = str(folder / 'teacher')
    distiller = MODELS.build(
        dict(
            type='mmtransmamba.LanguageDistiller',
            stage='transmamba',
            student=dict(
                type=VLM,
                path=path,
                convert=dict(layers='high', ratio=0.5, init='subclone'),
                head=HEAD,
            ),
            teacher=dict(type=VLM, path=path),
            terms=dict(
                task=dict(type='mmtransmamba.NextTokenTerm', weight=0.5),
                hidden=dict(
                    type='mmtransmamba.HiddenStatesTerm',
                    weight=0.5,
                    weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
                ),
            ),
        )
    )
    _, before = answer(distiller, folder)
    assert before['reasoning/well_formed'] == 0
    train(distiller, folder, 50)
    rows, figures = answer(distiller, folder)
    check(rows, figures)

    distiller.student.save_pretrained(tmp_path)
    distiller.companions.save(tmp_path)
    reloaded = MODELS.build(dict(type=VLM, path=str(tmp_path), head=HEAD))
    assert reloaded.lm.config.text_config.mamba_layers == [1]
    again, _ = answer(reloaded, folder)
    assert [row['text'] for row in again] == [row['text'] for row in rows]
