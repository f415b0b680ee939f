"""A cache reaches the layers under whichever name transformers has for it."""

import inspect

import pytest
import torch
from tiny_llavas import hybrid_llava
from tiny_patch_decoders import tiny_patch_decoder
from transformers import DynamicCache
from transformers.utils import generic, logging

from mmtransmamba.models.language import HYBRIDS
from mmtransmamba.models.language.cache_names import (
    CACHE,
    NAMES,
    either_name,
    returned_cache,
)


def hybrid(make_hybrid, kind):
    if kind == 'llava':
        return hybrid_llava()
    if kind == 'patch decoder':
        return tiny_patch_decoder('attention first')
    return make_hybrid(kind)


KINDS = [*HYBRIDS, 'llava', 'patch decoder']


def in_pieces(forward, model, name):
    ids = torch.randint(5, 61, (1, 9), generator=torch.Generator().manual_seed(1))
    cache = DynamicCache(config=model.config.get_text_config())
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
        pieces = []
        for part in ids.split((4, 1, 4), dim=1):
            outputs = forward(input_ids=part, **{name: cache})
            assert returned_cache(outputs) is cache
            pieces.append(outputs.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('kind', KINDS)
def test_either_name_is_taken(make_hybrid, kind, name):
    model = hybrid(make_hybrid, kind)
    in_pieces(model, model, name)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('kind', KINDS)
def test_either_name_is_taken_without_the_decorators_that_rename(
    make_hybrid, kind, name, monkeypatch
):
    """Those of transformers' own methods, which are announced to go."""
    model = hybrid(make_hybrid, kind)
    for cls in type(model), type(model.model):
        forward = either_name(inspect.unwrap(cls.forward))
        if 'forward' in vars(cls):  # not if it is the hybrids' own
            monkeypatch.setattr(cls, 'forward', forward)
    in_pieces(model, model, name)


@pytest.mark.parametrize('kind', KINDS)
def test_nothing_that_is_deprecated_is_used(make_hybrid, kind, monkeypatch, recwarn):
    def refuse(message, *args, **kwargs):
        assert 'deprecated' not in message, message

    # In this order: what the logger gets back is then its own.
    monkeypatch.setattr(generic.logger, 'warning_once', refuse)
    monkeypatch.setattr(logging.logging.Logger, 'warning_once', refuse, raising=False)
    model = hybrid(make_hybrid, kind)
    in_pieces(model, model, CACHE)
    prompt = torch.full((2, 4), 7)
    model.generate(prompt, max_new_tokens=2, num_beams=2)
    model(prompt, labels=prompt).loss.backward()
    told = [str(w.message) for w in recwarn if w.category is FutureWarning]
    assert not [text for text in told if any(name in text for name in NAMES)]


@pytest.mark.parametrize('name', NAMES)
def test_a_mixer_takes_either_name(make_hybrid, name):
    model = make_hybrid('llama', 'pure')
    mixer = model.model.layers[0].self_attn
    tokens = torch.randn(1, 6, 32)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        whole = mixer(tokens)[0]
        parts = [mixer(part, **{name: cache})[0] for part in tokens.split(3, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_two_caches_are_refused(make_hybrid, kind):
    model = hybrid(make_hybrid, kind)
    ids = torch.full((1, 4), 7)
    config = model.config.get_text_config()
    first, second = (DynamicCache(config=config) for _ in range(2))
    with pytest.raises(TypeError, match='two names of the same argument'):
        model(ids, cache=first, past_key_values=second)
    for both in (dict(cache=first, past_key_values=None), dict(past_key_values=first)):
        first.reset()
        assert returned_cache(model(ids, **both)) is first


def test_generate_is_told_the_name_of_its_release():
    model = tiny_patch_decoder()
    for module in (model, model.model, model.get_decoder()):
        assert CACHE in inspect.signature(module.forward).parameters
        assert (
            len(set(NAMES) & inspect.signature(module.forward).parameters.keys()) == 1
        )
    assert list(model._skip_keys_device_placement) == [CACHE]
