"""Answers without room in the context, and texts that are not answers."""

from types import SimpleNamespace

import pytest
import torch
from tiny_vlms import tiny_llava

from mmtransmamba.models.multimodal.heads.answer import AnswerHead
from mmtransmamba.models.multimodal.heads.generation import (
    refuse_nan,
    room_for_answer,
)


def model_of(limit=64, mamba=None, depth=2):
    text = SimpleNamespace(max_position_embeddings=limit, num_hidden_layers=depth)
    if mamba is not None:
        text.mamba_layers = mamba
    return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))


@pytest.mark.parametrize(
    'prompt, wanted, room',
    [(10, 5, 5), (10, 54, 54), (10, 10**9, 54), (63, 8, 1), (10, None, None)],
)
def test_an_answer_ends_where_the_context_does(prompt, wanted, room):
    assert room_for_answer(model_of(), prompt, wanted) == room
    # Some attention is left, which has positions.
    assert room_for_answer(model_of(mamba=[1]), prompt, wanted) == room


@pytest.mark.parametrize('prompt', [64, 65, 100_000])
def test_a_prompt_that_fills_the_context_is_refused(prompt):
    message = f'The prompt has {prompt} tokens, but the model can read 64'
    with pytest.raises(ValueError, match=message):
        room_for_answer(model_of(), prompt, 5)


def test_mamba_alone_has_no_limit():
    assert room_for_answer(model_of(mamba=[0, 1]), 1000, 5) == 5


def test_nothing_is_chosen_among_nan():
    scores = torch.tensor([[0.0, -torch.inf]])
    assert refuse_nan(None, scores) is scores
    with pytest.raises(ValueError, match='computes NaN where the next token'):
        refuse_nan(None, torch.tensor([[0.0, torch.nan]]))


class Tokenizer:
    pad_token_id = 0

    def batch_decode(self, ids, **_):
        return [str(row.tolist()) for row in ids]


def test_the_head_asks_for_both():
    model = tiny_llava()
    limit = model.config.get_text_config().max_position_embeddings
    ids = torch.ones(1, limit, dtype=torch.int64)
    head = AnswerHead(max_new_tokens=2)
    with pytest.raises(ValueError, match=f'The prompt has {limit} tokens'):
        head.generate(model, Tokenizer(), dict(input_ids=ids))
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match='computes NaN'):
        head.generate(model, Tokenizer(), dict(input_ids=ids[:, :4]))
