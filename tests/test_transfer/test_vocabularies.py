"""Students and teachers whose vocabularies have different sizes."""

import json

import pytest
import torch
from language_models import make_hybrid, make_teacher, tokens
from tiny_vlms import tiny_tokenizer
from torch.nn import functional as F

from mmtransmamba.models.trainable import CausalLM
from mmtransmamba.transfer import LanguageDistiller

SIZE = len(tiny_tokenizer())
KL = dict(type='mmtransmamba.TokenKLTerm')
PADDED = 128


def save(folder, vocab_size, tokenizer):
    """A folder of a Transformer, with a tokenizer if one is given."""
    make_teacher(vocab_size=vocab_size).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return CausalLM(path=str(folder))


def distiller_of(student, teacher, **options):
    """The student as a hybrid of the same size."""
    student.lm = make_hybrid(student.lm)
    return LanguageDistiller(student, teacher, dict(kl=KL | options))


def longer(*added):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(list(added))
    return tokenizer


def swap(folder, one, other):
    """Give two tokens of a folder's tokenizer each other's id."""
    path = folder / 'tokenizer.json'
    content = json.loads(path.read_text())
    ids = content['model']['vocab']
    ids[one], ids[other] = ids[other], ids[one]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    'of_student, of_teacher',
    [
        ((PADDED, tiny_tokenizer()), (PADDED + 24, tiny_tokenizer())),
        ((PADDED + 24, tiny_tokenizer()), (PADDED, tiny_tokenizer())),
        ((SIZE + 1, longer('<think>')), (SIZE, tiny_tokenizer())),
        ((SIZE, tiny_tokenizer()), (PADDED, longer('<think>'))),
    ],
    ids=['larger teacher', 'larger student', 'new token', 'padding and new token'],
)
def test_shared_ids_are_compared(of_student, of_teacher, tmp_path):
    student = save(tmp_path / 'student', *of_student)
    teacher = save(tmp_path / 'teacher', *of_teacher)
    distiller = distiller_of(student, teacher)
    batch = tokens()
    loss = distiller(**batch, mode='loss')['loss_kl']
    loss.backward()
    shared = min(of_student[0], of_teacher[0])
    logits, target = (
        model(**batch, use_cache=False).logits[:, :-1, :shared].log_softmax(-1)
        for model in (distiller.student, distiller.teacher)
    )
    expected = F.kl_div(logits, target, log_target=True, reduction='none').sum(-1)
    torch.testing.assert_close(loss, expected.mean())
    scores = distiller(**batch, mode='predict')
    kl = sum(s['kl'] for s in scores) / sum(s['tokens'] for s in scores)
    assert kl == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize('has_tokenizer', [True, False])
def test_what_cannot_be_confirmed_is_refused(has_tokenizer, tmp_path):
    student = save(tmp_path / 'student', PADDED, tiny_tokenizer())
    tokenizer = tiny_tokenizer() if has_tokenizer else None
    teacher = save(tmp_path / 'teacher', PADDED + 8, tokenizer)
    message = 'its tokenizer cannot be read from'
    if has_tokenizer:
        swap(tmp_path / 'teacher', 'A', 'B')
        message = "2 of .* ids stand for different tokens, such as .*'A'.*'B'"
    student.lm = make_hybrid(student.lm)
    with pytest.raises(ValueError, match=message) as caught:
        LanguageDistiller(student, teacher, dict(kl=KL))
    assert f'the student knows {PADDED} tokens, the teacher {PADDED + 8}' in str(
        caught.value
    )
    assert "vocabulary='shared'" in str(caught.value)
    trusting = LanguageDistiller(
        student, teacher, dict(kl=dict(KL, vocabulary='shared'))
    )
    assert trusting(**tokens(), mode='loss')['loss_kl'].isfinite()


def test_a_token_of_the_student_alone_is_named(tmp_path):
    student, teacher = (
        CausalLM(config=dict(make_teacher(vocab_size=size).config.to_dict()))
        for size in (40, 30)
    )
    distiller = distiller_of(student, teacher, vocabulary='shared')
    batch = tokens()
    batch['input_ids'][0, 2] = 35
    with pytest.raises(ValueError, match='token id 35; .* knows the ids 0 to 29'):
        distiller(**batch, mode='loss')


def test_unknown_rules_are_refused():
    teacher = make_teacher()
    with pytest.raises(ValueError, match="vocabulary='all' must be one of checked, sh"):
        LanguageDistiller(
            make_hybrid(teacher), teacher, dict(kl=KL | dict(vocabulary='all'))
        )
