"""Checkpoints of wrapped, parallel, averaged and held models."""

import itertools

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmtransmamba.models.checkpoint import (
    CONTAINERS,
    CheckpointError,
    load_pretrained,
    read_state_dict,
)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.out = nn.Linear(4, 2)


@pytest.fixture
def state():
    torch.manual_seed(1)
    return Model().state_dict()


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def check(checkpoint, state):
    model = Model()
    load_pretrained(model, checkpoint)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])


WORDS = ('module.', '_orig_mod.', 'model.', 'student.', 'backbone.', 'net.')
PREFIXES = [
    *WORDS,
    *(a + b for a, b in itertools.product(WORDS, WORDS)),
    '_fsdp_wrapped_module.',
    '_checkpoint_wrapped_module.',
    'module._fsdp_wrapped_module._orig_mod.',
    'model._orig_mod.module.',
    'ema_model.',
    '_forward_module.model.',
    'ema.module.',
    'averaged_model.',
    'swa_model.module.',
    'student_model.backbone.',
    'model_student.',
    'distiller.student.',
    'target_encoder.',
    'image_encoder.trunk.',
    '_model.',
    'ddp_model.module.',
]


@pytest.mark.parametrize('prefix', PREFIXES)
def test_prefixes_of_wrappers_are_removed(prefix, state, tmp_path):
    wrapped = prefixed(state, prefix)
    check(wrapped, state)
    torch.save(dict(state_dict=wrapped, epoch=3), tmp_path / 'x.pth')
    check(tmp_path / 'x.pth', state)
    save_file(wrapped, tmp_path / 'x.safetensors')
    check(tmp_path / 'x.safetensors', state)


@pytest.mark.parametrize(
    'word', ['_orig_mod.', '_fsdp_wrapped_module.', '_checkpoint_wrapped_module.']
)
def test_words_within_names_are_removed(word, state, tmp_path):
    inner = {key.replace('layers.', f'layers.{word}'): v for key, v in state.items()}
    assert list(inner) != list(state)
    check(inner, state)
    torch.save(inner, tmp_path / 'x.pth')
    assert list(read_state_dict(tmp_path / 'x.pth')) == list(state)


@pytest.mark.parametrize('container', CONTAINERS)
def test_containers(container, state, tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({container: prefixed(state, 'module.'), 'lr': 0.1}, path)
    check(path, state)
    torch.save({container: dict(module=state, decay=0.9)}, path)
    check(path, state)


@pytest.mark.parametrize(
    'container', ['params', 'weights', 'network', 'teacher', 'swa_state_dict', 'net_g']
)
def test_the_only_container_is_read_whatever_its_name(container, state, tmp_path):
    path = tmp_path / 'x.pth'
    moments = {0: torch.ones(3), 1: torch.ones(3)}
    torch.save({container: state, 'optimizer': moments, 'epoch': 3}, path)
    check(path, state)
    torch.save({container: dict(model=dict(state_dict=state)), 'epoch': 3}, path)
    check(path, state)
    torch.save({container: state, 'params_ema': state}, path)
    with pytest.raises(CheckpointError, match=f"several state dicts: '{container}'"):
        read_state_dict(path)
    assert list(read_state_dict(path, container=container)) == list(state)


@pytest.mark.parametrize('keys', [int, lambda n: ('layer', n)])
def test_tensors_without_names_are_no_state_dict(keys, state, tmp_path):
    torch.save({keys(n): v for n, v in enumerate(state.values())}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'x\.pth holds no state dict'):
        read_state_dict(tmp_path / 'x.pth')


@pytest.mark.parametrize(
    'change, word',
    [
        (lambda value: value.to('meta'), 'has no data'),
        (lambda value: value.to_sparse(), 'torch.sparse_coo'),
        (lambda value: value.to_sparse_csr(), 'torch.sparse_csr'),
    ],
)
def test_tensors_that_are_not_dense_are_named(change, word, state, tmp_path):
    state['out.weight'] = change(state['out.weight'])
    torch.save(state, tmp_path / 'x.pth')
    for checkpoint in (state, tmp_path / 'x.pth'):
        with pytest.raises(CheckpointError, match=f'out.weight .*{word}.*dense'):
            load_pretrained(Model(), checkpoint)


@pytest.mark.parametrize('counter', ['n_averaged', 'steps', 'step', 'initted'])
def test_averaged_models(counter, state, tmp_path):
    averaged = prefixed(state, 'module.') | {counter: torch.tensor(7)}
    torch.save(dict(ema_state_dict=averaged), tmp_path / 'x.pth')
    check(tmp_path / 'x.pth', state)
    check(averaged, state)


def test_of_several_containers_the_named_one_is_read(state, tmp_path):
    other = {key: value + 1 for key, value in state.items()}
    torch.save(dict(state_dict=other, ema_state_dict=state), tmp_path / 'x.pth')
    model = Model()
    load_pretrained(model, tmp_path / 'x.pth', container='ema_state_dict')
    assert torch.equal(model.out.weight, state['out.weight'])


def test_a_student_beside_its_teacher(state):
    teacher = {key: value + 1 for key, value in state.items()}
    both = prefixed(state, 'model.student.') | prefixed(teacher, 'model.teacher.')
    check(both, state)


def test_a_head_beside_the_backbone(state):
    beside = prefixed(state, 'model.backbone.') | {'model.head.fc': torch.zeros(1)}
    check(beside, state)


@pytest.mark.parametrize(
    'first, second', [('model.', 'ema_model.'), ('net.', 'student.'), ('ema.', 'net.')]
)
def test_two_models_are_ambiguous(first, second, state, tmp_path):
    path = tmp_path / 'x.pth'
    torch.save(prefixed(state, first) | prefixed(state, second), path)
    model = Model()
    before = model.out.weight.clone()
    names = ', '.join(sorted([first, second]))
    with pytest.raises(CheckpointError, match=rf'x\.pth is ambiguous.*of {names}'):
        load_pretrained(model, path)
    assert torch.equal(model.out.weight, before)


def test_two_tensors_of_one_name_are_ambiguous(state):
    double = state | {f'_orig_mod.{key}': value for key, value in state.items()}
    with pytest.raises(CheckpointError, match='ambiguous: layers.* and _orig_mod.lay'):
        load_pretrained(Model(), double)
    double = prefixed(state, 'net.') | {'out.weight': state['out.weight']}
    with pytest.raises(CheckpointError, match='ambiguous.*are both out.weight'):
        load_pretrained(Model(), double)


def test_names_of_something_else_are_refused(state):
    with pytest.raises(CheckpointError, match='missing in the file'):
        load_pretrained(Model(), prefixed(state, 'discriminator.'))


def test_a_model_with_such_a_name_of_its_own(state):
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = Model()

    held = Held()
    load_pretrained(held, prefixed(state, 'model.'))
    assert torch.equal(held.model.out.weight, state['out.weight'])
    load_pretrained(held, prefixed(state, 'module.model.'))
