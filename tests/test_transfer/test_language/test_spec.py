"""Specification of a conversion: one object, checked before a teacher is opened."""

import dataclasses
import re

import pytest
import torch
from tiny_decoders import tiny_teacher, tokens
from torch import nn

import mmtransmamba
from mmtransmamba.models.folders import lm
from mmtransmamba.models.folders.pretrained import Pretrained
from mmtransmamba.models.trainable import CausalLM, VisionLanguageModel
from mmtransmamba.transfer.convert import Conversion, convert, plan_conversion


def test_keywords_that_are_not_its_own_are_fields_of_the_config():
    asked = Conversion.of(layers=[1], init='vkq', head_dim=8, mixer='Mamba2')
    assert asked == Conversion([1], init='vkq', mixer='Mamba2', fields=dict(head_dim=8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        asked.init = 'mimic'


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(init='magic'), "init='magic' must be one of mimic, inherit, vkq,"),
        (dict(init='vkq', mixer='Mamba'), "init='vkq' is for mixer='Mamba2'"),
        (dict(mixer='Mamba9'), "mixer: type='Mamba9' must be one of "),
        (dict(mixer=dict(d_state=8)), "mixer: Mamba2 has no field 'd_state'; it takes"),
        (dict(mamba_checkpoint='x.pt'), "mamba_checkpoint needs init='subclone'"),
        (
            dict(ranking='best'),
            "ranking='best' must be one of single, greedy, recall, gates.",
        ),
        (dict(layers='auto'), 'Ranking layers needs calibration text; there is none.'),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_teacher_is_opened(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        convert('no/such/folder', **options)


@pytest.mark.parametrize('layers', [[1], 'auto'])
def test_the_teachers_folder_is_opened_once(layers, tmp_path, monkeypatch):
    tiny_teacher().save_pretrained(tmp_path)
    opened = []
    original = lm.open_folder
    monkeypatch.setattr(lm, 'open_folder', lambda f: opened.append(f) or original(f))
    hybrid, _ = convert(tmp_path, layers, 1 / 3, calibration=[tokens(2)])
    assert len(hybrid.config.mamba_layers) == 1
    assert opened == [tmp_path]


def test_every_entry_converts_alike(tmp_path):
    tiny_teacher().save_pretrained(tmp_path)
    options = dict(layers=[1], init='vkq', mixer=dict(d_conv=2), seed=3)
    plan = plan_conversion(tmp_path, Conversion(**options))
    by_config = CausalLM(path=str(tmp_path), convert=options)
    hybrids = [convert(tmp_path, **options)[0], by_config.lm]
    hybrids.append(mmtransmamba.convert(tmp_path, **options)[0])
    for name, tensor in plan.tensors():
        for hybrid in hybrids:
            assert torch.equal(hybrid.state_dict()[name], tensor), name


def test_a_model_without_a_config_is_not_a_teacher():
    with pytest.raises(TypeError, match='teacher is a Linear; convert'):
        Pretrained(nn.Linear(2, 2))


def test_a_trained_model_of_the_other_kind_is_named(tmp_path):
    tiny_teacher().save_pretrained(tmp_path)
    message = 'VisionLanguageModel: the model to convert is a language model; use Caus'
    with pytest.raises(ValueError, match=message):
        VisionLanguageModel(path=str(tmp_path), convert=dict(ratio=0.5))
