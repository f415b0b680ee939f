"""Distillation from a recorded teacher beside that from the teacher itself."""

import json
import sys

import markov_tokens  # noqa: F401 (registers its data set)
import pytest
import torch
from language_models import make_hybrid, make_teacher, tokens
from mmengine.config import Config
from mmengine.runner import Runner
from tiny_vlms import tiny_tokenizer

from mmtransmamba.apis.token_recording import record_config, record_tokens
from mmtransmamba.datasets.token_collate import token_sample
from mmtransmamba.models.divergence import DIVERGENCES
from mmtransmamba.models.teachers import CachedTeacher
from mmtransmamba.models.trainable import CausalLM
from mmtransmamba.transfer import LanguageDistiller

KL = dict(type='mmtransmamba.TokenKLTerm', vocabulary='shared', task_weight=0.5)
VOCAB = 29


def batch_of(size):
    batch = tokens(size, 9)
    batch['labels'][:, :3] = -100
    return batch


def cached(folder, batch, teacher, **options):
    dataset = [token_sample(row) for row in batch['input_ids']]
    record_tokens(dataset, teacher, folder, **options)
    return CachedTeacher(str(folder))


def losses_and_gradients(student, teacher, term, batch):
    distiller = LanguageDistiller(student, teacher, dict(kl=term), compare=False)
    losses = distiller(**batch, mode='loss')
    student.zero_grad()
    sum(losses.values()).backward()
    return losses, {
        n: p.grad for n, p in student.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize('divergence', DIVERGENCES)
def test_all_tokens_give_exactly_the_online_loss(divergence, tmp_path):
    """One sequence: among several, the teacher's own products round differently."""
    teacher, batch = make_teacher(), batch_of(1)
    recorded = cached(tmp_path, batch, teacher, k=VOCAB, dtype='float32')
    term, student = dict(KL, divergence=divergence), make_hybrid(teacher)
    online = losses_and_gradients(student, teacher, term, batch)
    offline = losses_and_gradients(student, recorded, term, batch)
    torch.testing.assert_close(offline, online, rtol=0, atol=0)


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('k', [4, VOCAB])
def test_cached_losses_are_online_losses_but_for_the_tail(k, fused, tmp_path):
    teacher, batch = make_teacher(), batch_of(3)
    recorded = cached(tmp_path, batch, teacher, k=k, dtype='float32')
    term, student = dict(KL, fused=fused), make_hybrid(teacher)
    online, wanted = losses_and_gradients(student, teacher, term, batch)
    offline, found = losses_and_gradients(student, recorded, term, batch)
    torch.testing.assert_close(offline['loss_kl_task'], online['loss_kl_task'])
    if k == VOCAB:
        torch.testing.assert_close(offline['loss_kl'], online['loss_kl'])
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
    else:
        assert 0 < offline['loss_kl'] < online['loss_kl']


def test_fused_and_plain_agree_on_a_cache(tmp_path):
    teacher, batch = make_teacher(), batch_of(3)
    recorded = cached(tmp_path, batch, teacher, k=5)
    student = make_hybrid(teacher)
    results = [
        losses_and_gradients(student, recorded, dict(KL, fused=fused), batch)
        for fused in (False, True)
    ]
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)


def test_what_a_cache_cannot_do_is_refused(tmp_path):
    teacher = make_teacher()
    recorded = cached(tmp_path, batch_of(1), teacher, k=4)
    student = make_hybrid(teacher)

    def build(compare=False, **terms):
        return LanguageDistiller(student, recorded, terms, compare=compare)

    with pytest.raises(ValueError, match='terms.layer compares layers'):
        build(layer=dict(type='mmtransmamba.ForcedLayerTerm'))
    with pytest.raises(ValueError, match='set model.compare=False'):
        build(compare=True, kl=KL)
    with pytest.raises(ValueError, match='temperature=2.0, but .* temperature=1.0'):
        build(kl=dict(KL, temperature=2.0))
    student = make_hybrid(make_teacher(vocab_size=20))
    with pytest.raises(ValueError, match='has 29 tokens, the student only 20'):
        build(kl=KL)


def run_config(tmp_path):
    """A teacher with a tokenizer, a data set of two-token steps, a hybrid student."""
    vocab = len(tiny_tokenizer())
    make_teacher(vocab_size=vocab).save_pretrained(tmp_path / 'teacher')
    tiny_tokenizer().save_pretrained(tmp_path / 'teacher')
    model = dict(type='mmtransmamba.CausalLM', path=str(tmp_path / 'teacher'))
    return Config(
        dict(
            default_scope='mmengine',
            work_dir=str(tmp_path / 'work'),
            model=dict(
                type='mmtransmamba.LanguageDistiller',
                student=dict(model, convert=dict(layers=[0], init='vkq')),
                teacher=model,
                terms=dict(kl=dict(type='mmtransmamba.TokenKLTerm', temperature=2.0)),
                compare=False,
            ),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                dataset=dict(
                    type='mmtransmamba.MarkovTokens',
                    num_samples=4,
                    length=8,
                    vocab_size=vocab,
                ),
                sampler=dict(type='DefaultSampler', shuffle=True),
                collate_fn=dict(type='mmtransmamba.collate_tokens'),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(teacher=dict(type='mmtransmamba.TeacherCheckHook')),
        )
    )


def test_a_config_trains_from_the_cache_of_the_tool(tmp_path, monkeypatch, repo_dir):
    cfg = run_config(tmp_path)
    cfg.dump(str(tmp_path / 'config.py'))
    monkeypatch.syspath_prepend(str(repo_dir / 'tools'))
    import cache_teacher

    out = tmp_path / 'cache'
    arguments = [str(tmp_path / 'config.py'), '--out', str(out), '--k', '3']
    monkeypatch.setattr(sys, 'argv', ['cache_teacher.py', *arguments])
    cache_teacher.main()
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['temperature'] == 2.0 and manifest['k'] == 3
    assert all(len(value) == 64 for value in manifest['hashes'].values())
    cfg.model.teacher = dict(type='mmtransmamba.CachedTeacher', folder=str(out))
    runner = Runner.from_cfg(cfg)
    before = runner.model.student.lm_head.weight.clone()
    runner.train()
    assert not torch.equal(runner.model.student.lm_head.weight, before)
    cfg.train_dataloader.dataset.seed = 1
    cfg.experiment_name = 'another'
    with pytest.raises(ValueError, match='recorded from another data set'):
        Runner.from_cfg(cfg).train()


def test_another_tokenizer_is_refused_before_training(tmp_path):
    cfg = run_config(tmp_path)
    record_config(cfg, tmp_path / 'cache', k=3)
    path = tmp_path / 'teacher' / 'tokenizer.json'
    content = json.loads(path.read_text())
    ids = content['model']['vocab']
    ids['A'], ids['B'] = ids['B'], ids['A']
    path.write_text(json.dumps(content))
    teacher = CachedTeacher(str(tmp_path / 'cache'))
    student = CausalLM(path=str(tmp_path / 'teacher'))
    student.lm = make_hybrid(student.lm)
    terms = dict(kl=dict(type='mmtransmamba.TokenKLTerm', temperature=2.0))
    with pytest.raises(ValueError, match='is not the tokenizer of the teacher cache'):
        LanguageDistiller(student, teacher, terms, compare=False)
    terms['kl']['vocabulary'] = 'shared'
    LanguageDistiller(student, teacher, terms, compare=False)


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda c: c.model.terms.kl.update(type='mmtransmamba.NextTokenTerm'),
            '0 temp',
        ),
        (
            lambda c: c.model.update(type='mmtransmamba.CausalLM'),
            'must be mmtransmamba',
        ),
    ],
)
def test_a_config_without_a_teacher_to_record_is_refused(change, message, tmp_path):
    cfg = run_config(tmp_path)
    change(cfg)
    with pytest.raises(ValueError, match=message):
        record_config(cfg, tmp_path / 'cache')
