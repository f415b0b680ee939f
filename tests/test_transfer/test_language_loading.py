"""Weights that do not fit a language model or its distiller are refused."""

import json

import pytest
import torch
from language_models import make_hybrid, make_teacher, teacher_config, tokens
from mmengine.runner import load_checkpoint
from safetensors.torch import load_file, save_file

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.trainable import CausalLM
from mmtransmamba.models.trainable.stages import StageError
from mmtransmamba.transfer import LanguageDistiller

HIDDEN = dict(
    type='mmtransmamba.HiddenStatesTerm',
    weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
)
KL = dict(type='mmtransmamba.TokenKLTerm')
NAME = 'model.layers.0.self_attn.x_proj.weight'


def distiller_of(layers=(0, 2), terms=None, **fields) -> LanguageDistiller:
    teacher = make_teacher()
    student = make_hybrid(teacher, layers=layers, **fields)
    return LanguageDistiller(student, teacher, terms or dict(kl=KL, hidden=HIDDEN))


# ------------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path):
    make_hybrid(make_teacher()).save_pretrained(tmp_path / 'student')
    return tmp_path / 'student'


def edit(folder, change) -> None:
    file = folder / 'model.safetensors'
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={'format': 'pt'})


def widen(state) -> None:
    state[NAME] = state[NAME].repeat(2, 1)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda state: state.pop(NAME), f'1 missing: {NAME}'),
        (lambda state: state.update(other=torch.zeros(1)), '1 unexpected: other'),
        (widen, rf'1 of another shape: {NAME} \(file \[\d+, 16\], config \[\d+, 16\]'),
    ],
    ids=['missing', 'unexpected', 'shape'],
)
def test_a_folder_whose_weights_do_not_fit(folder, change, message):
    edit(folder, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        CausalLM(path=str(folder))
    assert f'"{folder}"' in str(caught.value)


def test_a_folder_whose_config_names_other_layers(folder):
    config = json.loads((folder / 'config.json').read_text())
    config['layer_types'] = ['mamba', 'mamba', 'mamba']
    (folder / 'config.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match='layers.1.self_attn') as caught:
        CausalLM(path=str(folder))
    assert 'missing' in str(caught.value)
    assert 'unexpected' in str(caught.value)


@pytest.mark.parametrize('family', ['llama', 'phi', 'qwen3'])
def test_tied_weights_are_not_missing(tmp_path, family):
    student = make_hybrid(make_teacher(family))
    student.save_pretrained(tmp_path / 'student')
    loaded = CausalLM(path=str(tmp_path / 'student')).state_dict()
    for name, value in student.state_dict().items():
        assert torch.equal(loaded[name], value)


def test_random_weights_have_no_history():
    config = make_hybrid(make_teacher()).config.to_dict()
    assert config['transfer_history'] == ['init:mimic']
    student = CausalLM(config=config)
    assert student.lm.config.mamba_layers == [0, 2]
    assert student.lm.config.transfer_history == []
    with pytest.raises(StageError, match='history of this one is empty'):
        LanguageDistiller(student, make_teacher(), dict(kl=KL), stage='stage1')


# --------------------------------------------------------------- checkpoints


def save(model, path, **extra) -> str:
    torch.save({'state_dict': {**model.state_dict(), **extra}}, path)
    return str(path)


def test_a_checkpoint_of_other_layers(tmp_path):
    file = save(distiller_of(layers=[0, 1]), tmp_path / 'other.pth')
    model = distiller_of(layers=[0, 2])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, file)
    message = str(caught.value)
    assert 'does not fit HybridLlamaForCausalLM' in message
    assert 'missing: model.layers.1.self_attn.q_proj.weight' in message
    assert 'unexpected: model.layers.1.self_attn.' in message
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_a_checkpoint_of_other_shapes(tmp_path):
    file = save(
        distiller_of(init='subclone', mixer=dict(d_state=8)), tmp_path / 'a.pth'
    )
    with pytest.raises(CheckpointError, match=r'A_log \(checkpoint \[32, 8\], model '):
        load_checkpoint(distiller_of(init='subclone', mixer=dict(d_state=4)), file)


def test_the_student_alone_is_enough(tmp_path):
    source = make_hybrid(make_teacher(seed=3))
    model = distiller_of()
    load_checkpoint(model, save(source, tmp_path / 'student.pth'))
    for name, value in source.state_dict().items():
        assert torch.equal(model.student.state_dict()[name], value)
    # One of two names of the same tensor is enough.
    state = source.state_dict()
    del state['lm_head.weight']
    torch.save({'state_dict': state}, tmp_path / 'tied.pth')
    load_checkpoint(distiller_of(), str(tmp_path / 'tied.pth'))


def test_a_distillers_checkpoint_fits_the_student_alone(tmp_path):
    source = distiller_of()
    file = save(source, tmp_path / 'iter_1.pth')
    config = source.student.config.to_dict()
    alone = CausalLM(config=config)
    load_checkpoint(alone, file)
    batch = tokens()
    assert torch.equal(alone(**batch), source(**batch))
    with pytest.raises(CheckpointError, match='self_attn'):
        load_checkpoint(CausalLM(config=teacher_config()), file)


def test_unknown_names_are_refused():
    fields = teacher_config()
    with pytest.raises(ValueError, match="float32, bfloat16 or float16, got 'bf16'"):
        CausalLM(config=fields, dtype='bf16')
    with pytest.raises(ValueError, match="model_type='lama' must be one of"):
        CausalLM(config=fields | dict(model_type='lama'))
    with pytest.raises(ValueError, match='model_type=None must be one of'):
        CausalLM(config={})
