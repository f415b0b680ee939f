"""Mixers that are fitted to the attention on text, and the proof of a conversion."""

import json
import math
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from tiny_decoders import tiny_teacher, tokens
from torch.nn import functional as F

from mmtransmamba.models.folders.assemble import assemble
from mmtransmamba.transfer.convert import (
    calibrating,
    conversion,
    convert,
    plan_conversion,
    rank_layers,
    write_model,
)
from mmtransmamba.transfer.convert.calibrating import MixerFit
from mmtransmamba.transfer.convert.calibration import split_held_out
from mmtransmamba.transfer.convert.spec import Conversion

MIXERS = ('Mamba2', 'GatedDeltaNet', 'KDA')
each = pytest.mark.parametrize('mixer', MIXERS)


@pytest.fixture(scope='module')
def teacher():
    return tiny_teacher('qwen2')


@pytest.fixture(scope='module')
def text():
    return list(tokens(24, 40).split(8))


def calibrated(teacher, text, mixer, **options):
    options = dict(calibration=text, calibration_steps=0) | options
    return convert(teacher, [0, 2], init='calibrate', mixer=mixer, **options)


@each
def test_a_mixer_is_nearer_to_its_attention_with_every_part(teacher, text, mixer):
    """Than copied projections are, on text that nothing was fitted to."""
    errors = []
    held = torch.cat(split_held_out(text)[1])
    with torch.no_grad():
        hidden = teacher.model.layers[0].input_layernorm(
            teacher.model.embed_tokens(held)
        )
        positions = torch.arange(held.shape[1])[None]
        rotary = teacher.model.rotary_emb(hidden, positions)
        mask = torch.full((40, 40), -torch.inf).triu(1)[None, None]
        target = teacher.model.layers[0].self_attn(
            hidden, position_embeddings=rotary, attention_mask=mask
        )[0]
    for model in (
        convert(teacher, [0, 2], init='vkq', mixer=mixer)[0],
        calibrated(teacher, text, mixer)[0],
        calibrated(teacher, text, mixer, calibration_steps=60)[0],
    ):
        with torch.no_grad():
            mixed = model.model.layers[0].self_attn(hidden)[0]
        errors.append(float((mixed - target).square().mean()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < float(target.square().mean())


@pytest.mark.parametrize('count, chosen', [(4, 10.0), (4000, 1e-3)])
def test_the_prior_weighs_more_the_less_text_there_is(
    teacher, count, chosen, monkeypatch
):
    """Heads of noise, targets of another projection with noise of their own."""
    model, _ = convert(teacher, [0], mixer='GatedDeltaNet')
    fit = MixerFit(model.model.layers[0].self_attn)
    out = fit.mixer.out_proj
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, count, out.in_features, generator=generator)
    before = out.weight.detach().clone()
    change = torch.randn(before.shape, generator=generator)
    noise = 0.1 * torch.randn(2, count, out.out_features, generator=generator)
    y = x @ (before + 0.03 * change).T + noise
    monkeypatch.setattr(calibrating, 'heads_of', lambda mixer, normed, rows: x)
    used = []
    ridge = calibrating._ridge
    monkeypatch.setattr(
        calibrating, '_ridge', lambda *args: used.append(args[-1]) or ridge(*args)
    )
    fit.see_output(x, SimpleNamespace(mixed=y, heads=x))
    fit.finish()
    assert used[-1] == chosen
    assert len(used) == 2 * len(calibrating.RIDGES) + 1
    truth = before + 0.03 * change
    assert (out.weight - truth).norm() < (before - truth).norm()


@pytest.mark.parametrize('mixer', ['WindowMamba2', 'WindowGatedDeltaNet', 'WindowKDA'])
@pytest.mark.parametrize('fields', [{}, dict(norm='none')], ids=['norm', 'no norm'])
def test_a_calibrated_window_begins_as_the_window(teacher, text, mixer, fields):
    if fields and mixer != 'WindowMamba2':
        pytest.skip('the others always have a norm')
    fields = dict(window=12, sinks=1) | fields
    read = torch.cat(split_held_out(text)[0])

    def distance(model):
        with torch.no_grad():
            p, q = (m(read).logits.double().log_softmax(-1) for m in (teacher, model))
        return float((p.exp() * (p - q)).sum(-1).mean())

    window = dict(type='SlidingWindow', window=12, sinks=1)
    alone = distance(convert(teacher, [0, 2], mixer=window)[0])
    begun, _ = calibrated(teacher, text, dict(type=mixer, **fields))
    assert distance(begun) == pytest.approx(alone, rel=0.1)
    for i in (0, 2):
        own = begun.model.layers[i].self_attn
        assert 0 < own.branch_share(torch.randn(1, 40, 32)) < 0.1
        theirs = teacher.model.layers[i].self_attn.o_proj.weight
        assert torch.equal(own.out_proj.weight, theirs)
    fitted, _ = calibrated(
        teacher, text, dict(type=mixer, **fields), calibration_steps=60
    )
    assert distance(fitted) < alone


@each
def test_decays_are_the_distances_of_the_attention(teacher, text, mixer):
    model, _ = calibrated(teacher, text, mixer)
    own = model.model.layers[0].self_attn
    fit = torch.cat(split_held_out(text)[0])
    eager = tiny_teacher('qwen2', attn_implementation='eager')
    with torch.no_grad():
        weights = eager(fit, output_attentions=True).attentions[0]
    apart = (torch.arange(40)[:, None] - torch.arange(40))[:, 1:]
    weights = weights[..., 1:]
    distances = (weights * apart).sum((0, 2, 3)) / weights.sum((0, 2, 3))
    steps = F.softplus(own.dt_bias) * own.A_log.exp().repeat_interleave(
        own.dt_bias.numel() // 4
    )
    lives = math.log(2) / steps.unflatten(0, (4, -1)).mean(-1)
    torch.testing.assert_close(lives, distances, rtol=1e-3, atol=1e-3)


def test_the_seed_decides_and_the_teacher_is_left_as_it_was(teacher, text):
    before = {n: t.clone() for n, t in teacher.state_dict().items()}
    how = teacher.config._attn_implementation

    several = [
        rows[:, :length] for rows, length in zip(text, (40, 30, 20), strict=True)
    ]

    def made(seed):
        options = dict(calibration=several, calibration_steps=2, seed=seed)
        model, _ = calibrated(teacher, text, 'Mamba2', **options)
        return model.model.layers[0].self_attn.x_proj.weight

    first = made(0)
    assert torch.equal(made(0), first)
    assert not torch.equal(made(1), first)
    assert teacher.config._attn_implementation == how
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(module._forward_hooks for module in teacher.modules())


@pytest.mark.parametrize('init', ['mimic', 'vkq', 'calibrate'])
def test_the_report_proves_how_near_the_teacher_is(teacher, text, init, tmp_path):
    steps = dict(calibration_steps=0) if init == 'calibrate' else {}
    model, report = convert(teacher, [1], init=init, calibration=text, **steps)
    held = tokens(24, 40)[-3:]
    with torch.no_grad():
        p, q = (m(held).logits[:, :-1].double() for m in (teacher, model))
    kl = (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1).mean()
    nll = F.cross_entropy(q.flatten(0, 1), held[:, 1:].flatten())
    proof = report.proof
    assert proof.tokens == 3 * 39 and proof.held_out
    assert proof.kl == pytest.approx(float(kl), rel=1e-4)
    assert proof.perplexity == pytest.approx(float(nll.exp()), rel=1e-4)
    assert proof.agreement == float((p.argmax(-1) == q.argmax(-1)).double().mean())
    assert f'KL {proof.kl:.4f} nats per token' in str(report)
    report.save(tmp_path / 'report.json')
    assert json.loads((tmp_path / 'report.json').read_text())['proof']['kl'] == proof.kl


def test_without_text_there_is_no_proof_and_ranked_text_is_named(
    teacher, text, tmp_path
):
    _, report = convert(teacher, [1])
    assert report.proof is None and 'Against the teacher' not in str(report)
    _, report = convert(teacher, 'auto', 1 / 3, calibration=text)
    assert not report.proof.held_out
    assert 'by which the layers were ranked' in str(report)
    # A ranking from elsewhere may have read this text or another one.
    path = tmp_path / 'rank.json'
    path.write_text(json.dumps(asdict(rank_layers(teacher, tokens(4, 12).split(2)))))
    _, report = convert(teacher, path, 1 / 3, calibration=text)
    assert report.proof.held_out is None
    assert 'held out, unless the ranking of the layers has read it' in str(report)


def test_a_language_model_is_built_once(teacher, text, monkeypatch):
    built = []

    def count(*args):
        built.append(assemble(*args))
        return built[-1]

    monkeypatch.setattr(conversion, 'assemble', count)
    model, _ = calibrated(teacher, text, 'KDA')
    assert [id(each) for each in built] == [id(model)]


def test_a_folder_is_written_with_what_was_fitted(teacher, text, tmp_path):
    """By the plan, tensor by tensor, as in memory."""
    from transformers import AutoModelForCausalLM

    model, report = calibrated(teacher, text, 'KDA')
    fitted = {e.target: e for e in report.entries if 'fitted on 840 tokens' in str(e)}
    assert 'model.layers.0.self_attn.out_proj.weight' in fitted
    assert not any('layers.1.' in name for name in fitted)
    asked = Conversion(
        [0, 2],
        init='calibrate',
        mixer='KDA',
        calibration=text,
        calibration_steps=0,
    )
    write_model(plan_conversion(teacher, asked), tmp_path / 'out')
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / 'out')
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize('rows', [[(1, 40)], [(2, 8), (3, 5)], [(4, 512)] * 5])
def test_text_is_held_out(rows):
    batches = [torch.arange(n * k).view(n, k) for n, k in rows]
    fit, held = split_held_out(batches)
    assert sum(b.numel() for b in (*fit, *held)) == sum(b.numel() for b in batches)
    assert len(held) == max(1, sum(n for n, _ in rows) // 8)
    assert all(b.numel() <= 2048 for b in fit)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(init='calibrate'), "init='calibrate' needs calibration text"),
        (
            dict(init='mimic', calibration_steps=3),
            "calibration_steps goes with init='calibrate', not 'mimic'",
        ),
        (
            dict(init='calibrate', calibration=[tokens(2)], calibration_steps=-1),
            'calibration_steps=-1 must be 0 or more',
        ),
        (
            dict(init='calibrate', calibration=[tokens(2)], mixer='SlidingWindow'),
            "init='calibrate' is for mixer='Mamba2' or 'GatedDeltaNet' or 'KDA'",
        ),
        (dict(calibration=[tokens(1, 3)]), 'too short to hold a part of it out'),
        (dict(calibration=[tokens(2) + 99]), 'has the token id'),
    ],
)
def test_what_does_not_fit_is_refused(teacher, options, message):
    with pytest.raises(ValueError, match=message):
        convert(teacher, [1], **options)
