"""Which tokens are predicted, and batches of which nothing can be predicted."""

import pytest
import torch
from language_models import VOCAB, make_hybrid, make_teacher, teacher_config, tokens

from mmtransmamba.models.token_losses import predicted
from mmtransmamba.models.trainable import CausalLM
from mmtransmamba.transfer import LanguageDistiller
from mmtransmamba.transfer.terms.language import token_mean

TERMS = dict(
    kl=dict(type='mmtransmamba.TokenKLTerm'),
    task=dict(type='mmtransmamba.NextTokenTerm'),
)


def distiller_of(*terms) -> LanguageDistiller:
    teacher = make_teacher()
    return LanguageDistiller(
        make_hybrid(teacher), teacher, {term: TERMS[term] for term in terms}
    )


@pytest.mark.parametrize(
    'mask, expected',
    [
        ([1, 1, 1, 1, 1], [1, 1, 1, 1]),
        ([1, 1, 1, 0, 0], [1, 1, 0, 0]),
        ([0, 0, 1, 1, 1], [0, 0, 1, 1]),
    ],
)
def test_padding_is_neither_predicted_nor_predicts(mask, expected):
    """Although the labels, a copy of the padded ids, do not ignore it."""
    labels = torch.tensor([[4, 5, 6, 0, 0]])
    found = predicted(labels, torch.tensor([mask]))
    assert found.tolist() == [[bool(e) for e in expected]]


@pytest.mark.parametrize('side', ['left', 'right'])
def test_losses_with_padding_that_has_labels(side):
    model, distiller = CausalLM(config=teacher_config()), distiller_of('kl', 'task')
    plain = tokens()
    pad = (4, 0) if side == 'left' else (0, 4)
    more = {key: torch.nn.functional.pad(value, pad) for key, value in plain.items()}
    for who in (model, distiller):
        expected, found = who(**plain, mode='loss'), who(**more, mode='loss')
        for key, value in expected.items():
            assert found[key].item() == pytest.approx(value.item(), rel=1e-3)
        scores = who(**more, mode='predict')
        assert [score['tokens'] for score in scores] == [8, 8]


@pytest.mark.parametrize('mode', ['loss', 'predict'])
@pytest.mark.parametrize('who', ['alone', 'kl', 'task'])
def test_a_batch_without_labels(who, mode):
    model = CausalLM(config=teacher_config()) if who == 'alone' else distiller_of(who)
    batch = tokens()
    del batch['labels']
    with pytest.raises(ValueError, match='The batch has no labels'):
        model(**batch, mode=mode)
    assert model(**batch).shape == (2, 9, VOCAB)


@pytest.mark.parametrize('mode', ['loss', 'predict', 'tensor'])
@pytest.mark.parametrize('who', ['alone', 'kl'])
@pytest.mark.parametrize('token', [VOCAB, -1])
def test_a_token_of_another_vocabulary(who, mode, token):
    model = CausalLM(config=teacher_config()) if who == 'alone' else distiller_of(who)
    batch = tokens()
    model(**batch, mode=mode)  # on a CPU not only the first batch is checked
    batch['input_ids'][1, 3] = token
    with pytest.raises(
        ValueError, match=f'token id {token}; .* knows the ids 0 to {VOCAB - 1}'
    ):
        model(**batch, mode=mode)


@pytest.mark.parametrize('half', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('shape', [(8, 2048), (8, 2048, 3)])
def test_means_over_tokens_are_sums_in_float32(shape, half):
    values = 10 + torch.randn(shape)
    mask = torch.rand(8, 2048) < 0.9
    expected = values[mask].double().mean(0).float()
    with torch.autocast('cpu', dtype=half):
        found = token_mean(values, mask)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    # Not what half precision cannot hold either, and in the type that was given.
    found = token_mean(values.to(half), mask)
    assert found.dtype == half
    torch.testing.assert_close(found.float(), expected, rtol=5e-3, atol=0)
