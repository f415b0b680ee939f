"""Recorded next-token logits: what is lost, and how a folder is protected."""

import json

import pytest
import torch
from language_models import VOCAB, make_teacher

from mmtransmamba.apis.token_recording import record_tokens
from mmtransmamba.datasets.token_collate import token_sample
from mmtransmamba.models.divergence import DIVERGENCES, Divergence
from mmtransmamba.models.teachers import CachedTeacher
from mmtransmamba.models.teachers.token_cache import (
    TokenCache,
    read_manifest,
    top_divergence,
    top_logits,
)

LENGTHS = (9, 5, 7, 9, 6)


def samples(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        token_sample(torch.randint(3, VOCAB, (n,), generator=generator))
        for n in LENGTHS
    ]


def record(folder, **options):
    given = dict(dataset=samples(), teacher=make_teacher(), k=4, shard_samples=2)
    return record_tokens(folder=folder, **given | options)


def rows(seed, count=6, classes=40):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, classes, generator=generator)


@pytest.mark.parametrize('kind', DIVERGENCES)
@pytest.mark.parametrize('temperature', [1.0, 2.0])
def test_all_tokens_give_the_same_divergence_to_the_last_bit(kind, temperature):
    student, teacher = rows(0), rows(1)
    top = top_logits(teacher, 40, 'float32', 1.0)
    assert (top.rest == -torch.inf).all()
    divergence = Divergence(kind, temperature)
    found = top_divergence(divergence, student, top, 40)
    assert torch.equal(found, divergence(student, teacher))


@pytest.mark.parametrize('k', [1, 5, 39])
@pytest.mark.parametrize('temperature', [1.0, 2.0])
def test_what_forward_kl_lacks_is_the_divergence_within_the_tail(k, temperature):
    student, teacher = rows(0), rows(1)
    top = top_logits(teacher, k, 'float32', temperature)
    divergence = Divergence(temperature=temperature)
    found = top_divergence(divergence, student, top, 40)
    p, q = ((x / temperature).double().softmax(-1) for x in (teacher, student))
    p, q = (x.scatter(-1, top.ids, 0) for x in (p, q))
    tail = p.sum(-1)
    p, q = (x / x.sum(-1, keepdim=True) for x in (p, q))
    within = torch.special.xlogy(p, p / q).nan_to_num(0).sum(-1)
    lacking = divergence(student, teacher) - found
    torch.testing.assert_close(
        lacking.double(), temperature**2 * tail * within, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize('kind', DIVERGENCES)
def test_fewer_tokens_never_exceed_the_whole_divergence(kind):
    student, teacher = rows(0), rows(1)
    divergence, found = Divergence(kind), []
    for k in (1, 4, 16, 39):
        top = top_logits(teacher, k, 'float32', 1.0)
        found.append(top_divergence(divergence, student, top, 40))
    found.append(divergence(student, teacher))
    for less, more in zip(found, found[1:], strict=False):
        assert (less <= more + 1e-5).all()


@pytest.mark.parametrize('dtype, error', [('float16', 2e-3), ('bfloat16', 2e-2)])
def test_sixteen_bits_change_the_divergence_little(dtype, error):
    student, teacher = rows(0), rows(1) + 300
    exact = Divergence()(student, teacher)
    for k in (8, 40):
        top = top_logits(teacher, k, dtype, 1.0)
        assert top.logits.dtype == getattr(torch, dtype)
        wanted = top_divergence(
            Divergence(), student, top_logits(teacher, k, 'float32', 1.0), 40
        )
        found = top_divergence(Divergence(), student, top, 40)
        torch.testing.assert_close(found, wanted, rtol=0, atol=error * exact.max())


def test_a_cache_returns_what_the_teacher_said(tmp_path):
    manifest = record(tmp_path)
    assert [s['samples'] for s in manifest.shards] == [2, 2, 1]
    cache, teacher = TokenCache(tmp_path), make_teacher()
    for sample in reversed(samples()):
        ids = sample['input_ids']
        wanted = top_logits(teacher(input_ids=ids[None]).logits[0], 4, 'float16', 1.0)
        found = cache.read(ids)
        assert torch.equal(found.ids, wanted.ids)
        assert torch.equal(found.logits, wanted.logits)
        assert torch.equal(found.rest, wanted.rest)


@pytest.mark.parametrize('side', ['left', 'right'])
def test_padding_moves_what_is_recorded_along(side, tmp_path):
    record(tmp_path)
    teacher, cache = CachedTeacher(str(tmp_path)), TokenCache(tmp_path)
    tokens = [s['input_ids'] for s in samples()[:2]]
    pad = (4, 0) if side == 'left' else (0, 4)
    short = torch.nn.functional.pad(tokens[1], pad)
    mask = torch.nn.functional.pad(torch.ones(5, dtype=torch.int64), pad)
    batch = torch.stack([tokens[0], short])
    found = teacher(batch, torch.stack([torch.ones_like(mask), mask]))
    assert found.ids.shape == found.logits.shape == (2, 9, 4)
    for row, (ids, kept) in enumerate(zip(tokens, (mask >= 0, mask > 0), strict=True)):
        wanted = cache.read(ids)
        assert torch.equal(found.ids[row][kept], wanted.ids)
        assert torch.equal(found.logits[row][kept], wanted.logits)
        assert torch.equal(found.rest[row][kept], wanted.rest)


class Interrupted(Exception):
    pass


def test_an_interrupted_recording_continues(tmp_path):
    """Cut within the second shard, whose first half is done again."""
    whole = record(tmp_path / 'whole')
    teacher, calls = make_teacher(), []

    def count(module, args, kwargs):
        calls.append(kwargs['input_ids'].shape[1])
        if len(calls) == 4:
            raise Interrupted

    teacher.register_forward_pre_hook(count, with_kwargs=True)
    folder = tmp_path / 'cut'
    with pytest.raises(Interrupted):
        record(folder, teacher=teacher)
    assert read_manifest(folder).done == 2
    (folder / 'shard-00001.safetensors.part').write_bytes(b'half')
    with pytest.raises(ValueError, match='has 2 of 5 samples; let .* finish'):
        CachedTeacher(str(folder))
    assert record(folder, teacher=teacher) == whole
    assert calls == [*LENGTHS[:4], *LENGTHS[2:]]
    assert record(folder, teacher=teacher) == whole and len(calls) == 7


@pytest.mark.parametrize(
    'changed, name',
    [
        (dict(k=5), 'k=4'),
        (dict(dtype='bfloat16'), "dtype='float16'"),
        (dict(temperature=2.0), 'temperature=1.0'),
        (dict(tokenizer='ab'), 'hashes.tokenizer=None'),
        (dict(dataset=samples(1)), 'hashes.dataset='),
        (dict(teacher=make_teacher(seed=1)), 'hashes.weights='),
        (dict(teacher=make_teacher(rope_theta=500.0)), 'hashes.config='),
    ],
)
def test_another_recording_is_refused_by_name(changed, name, tmp_path):
    record(tmp_path)
    with pytest.raises(ValueError, match=f'holds another recording .*{name}') as error:
        record(tmp_path, **changed)
    assert str(error.value).count('hashes.') == name.count('hashes.')


@pytest.mark.parametrize(
    'option, message',
    [
        (dict(k=0), r'k=0 must lie in \[1, 29\]'),
        (dict(k=30), r'k=30 must lie in \[1, 29\]'),
        (dict(dtype='int8'), "dtype='int8' must be one of float32"),
        (dict(temperature=0), 'temperature=0 must be greater'),
    ],
)
def test_what_cannot_be_recorded_is_refused(option, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        record(tmp_path, **option)
    assert not list(tmp_path.iterdir())


def test_a_damaged_or_missing_shard_is_named(tmp_path):
    record(tmp_path)
    shard = tmp_path / 'shard-00001.safetensors'
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match='CachedTeacher: .*shard-00001.*has changed'):
        CachedTeacher(str(tmp_path))
    CachedTeacher(str(tmp_path), verify=False)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match='lacks shard-00001'):
        CachedTeacher(str(tmp_path))
    with pytest.raises(FileNotFoundError, match='holds no teacher cache'):
        CachedTeacher(str(tmp_path / 'none'))
    manifest = tmp_path / 'manifest.json'
    manifest.write_text(json.dumps(dict(k=3)))
    with pytest.raises(ValueError, match='describes no teacher cache'):
        CachedTeacher(str(tmp_path))


def test_other_samples_and_inputs_are_refused(tmp_path):
    record(tmp_path)
    teacher = CachedTeacher(str(tmp_path))
    ids = samples()[0]['input_ids'][None]
    with pytest.raises(ValueError, match='a sample of 9 tokens, first .* is not in'):
        teacher(ids.flip(1))
    with pytest.raises(ValueError, match='the batch has pixel_values'):
        teacher(ids, pixel_values=torch.zeros(1))
    with pytest.raises(ValueError, match='the batch has position_ids'):
        teacher(ids, position_ids=torch.arange(9)[None])
    teacher.check_dataset(samples()[::-1])
    with pytest.raises(ValueError, match='recorded from another data set'):
        teacher.check_dataset(samples()[:4])


@pytest.mark.parametrize(
    'more',
    [
        dict(position_ids=torch.tensor([0, 1, 2, 0, 1])),
        dict(pixel_values=torch.zeros(3, 8, 8)),
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_cannot_be_read_again_is_not_recorded(more, tmp_path):
    dataset = samples()
    dataset[1] = dataset[1] | more
    with pytest.raises(ValueError, match=f'Sample 1 has {next(iter(more))}'):
        record(tmp_path / 'cache', dataset=dataset)
    assert not (tmp_path / 'cache').exists()
