"""Trainings under bfloat16 autocast beside the same in float32."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from language_models import make_hybrid, make_teacher, tokens
from tiny_backbones import BACKBONES, images_for, make_backbone
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmtransmamba.models.language import cast_parameters
from mmtransmamba.models.language.cache_names import returned_cache
from mmtransmamba.registry import DECODER_MIXERS

STEPS = 50
# Of the first loss. A number has 8 bits in bfloat16, an error of 0.4 %.
TOLERANCE = 0.02
MIXERS = (
    *('Mamba', 'Mamba2', 'GatedDeltaNet', 'KDA', 'SlidingWindow'),
    *('DiscreteMamba2', 'MambaInLlama'),
    *('WindowMamba2', 'WindowGatedDeltaNet', 'WindowKDA'),
    *('HeadsMamba2', 'HeadsGatedDeltaNet', 'HeadsKDA'),
)
SMALL = dict(MambaInLlama=dict(d_state=4))  # in the width of the key-value heads
SMALL |= {x: dict(attention_kv_heads=[1]) for x in MIXERS if x.startswith('Heads')}
INITS = dict(Mamba='subclone', DiscreteMamba2='scratch', MambaInLlama='vkq')


class Classifier(nn.Module):
    """A backbone with a linear head, and a batch that it learns by heart."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = make_backbone(name)
        self.images = images_for(name, 4)
        torch.manual_seed(2)
        with torch.no_grad():
            self.head = nn.Linear(self.features().shape[1], 3)

    def features(self) -> Tensor:
        return self.backbone(self.images)[-1].reshape(4, -1)

    def forward(self) -> Tensor:
        return F.cross_entropy(self.head(self.features()), torch.arange(4) % 3)


class Speaker(nn.Module):
    """A hybrid, and the tokens that it learns by heart."""

    def __init__(self, mixer: str) -> None:
        super().__init__()
        init = INITS.get(mixer, 'mimic')
        fields = dict(type=mixer, **SMALL.get(mixer, {}))
        self.model = make_hybrid(make_teacher(), init=init, mixer=fields)
        self.tokens = tokens()

    def forward(self) -> Tensor:
        return self.model(**self.tokens).loss


MODELS = {name: partial(Classifier, name) for name in BACKBONES}
MODELS |= {name: partial(Speaker, name) for name in MIXERS}


class Watched(TorchDispatchMode):
    """Collects the dtypes that this package's own operators receive and return."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if func.namespace == 'mmtransmamba':
            leaves = tree_leaves((args, kwargs, result))
            self.dtypes |= {
                leaf.dtype
                for leaf in leaves
                if isinstance(leaf, Tensor) and leaf.is_floating_point()
            }
        return result


def train(name: str, half: bool) -> Tensor:
    """The losses of a training."""
    model = MODELS[name]().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            loss = model()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return torch.tensor(losses)


def test_every_backbone_and_mixer_is_in_the_table():
    assert set(MIXERS) == {
        name
        for name, mixer in DECODER_MIXERS.module_dict.items()
        if mixer.__module__.startswith('mmtransmamba.')
    }
    known = {cls.__name__ for cls, _ in BACKBONES.values()}
    assert known == {'PlainMamba', 'Vim', 'VideoMamba', 'VMamba', 'VRWKV'}


@pytest.mark.parametrize('name', MODELS)
def test_bfloat16_learns_as_float32_does(name):
    exact, half = train(name, half=False), train(name, half=True)
    assert exact[-1] < 0.5 * exact[0]
    assert not torch.equal(exact, half)
    assert (exact - half).abs().max() < TOLERANCE * exact[0]


@pytest.mark.parametrize('name', MODELS)
def test_scans_states_and_parameters_stay_float32_under_autocast(name):
    model = MODELS[name]().train()
    with torch.autocast('cpu', torch.bfloat16), Watched() as watched:
        model().backward()
    assert watched.dtypes <= {torch.float32}
    # Windows of attention have no scan.
    assert watched.dtypes or name == 'SlidingWindow'
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {
        torch.float32
    }


@pytest.mark.parametrize('mixer', [name for name in MIXERS if name != 'SlidingWindow'])
def test_the_states_of_a_bfloat16_hybrid_are_float32(mixer):
    model = cast_parameters(Speaker(mixer).model, torch.bfloat16)
    with torch.no_grad():
        cache = returned_cache(model(tokens()['input_ids'], use_cache=True))
    states = [
        state
        for layer in cache.layers
        for state in _each(getattr(layer, 'recurrent_states', None))
    ]
    assert states
    assert {state.dtype for state in states} == {torch.float32}


def _each(states) -> list[Tensor]:
    """The states of a layer, which some versions of transformers number."""
    if states is None:
        return []
    return list(states.values()) if isinstance(states, dict) else [states]


# ------------------------------------------------------------------------ compilation


@pytest.mark.parametrize('name', BACKBONES)
def test_a_backbone_in_training_is_one_graph(name):
    model, images = make_backbone(name).train(), images_for(name)
    torch.compiler.reset()
    counter = CompileCounter()
    torch.manual_seed(0)
    expected = model(images)[-1]
    model.compile(backend=counter, fullgraph=True)  # a break is an error
    torch.manual_seed(0)
    torch.testing.assert_close(model(images)[-1], expected)
    assert counter.frame_count == 1


@pytest.mark.usefixtures('compilable')
@pytest.mark.parametrize('mixer', MIXERS)
def test_a_hybrid_in_training_is_one_graph(mixer):
    model = Speaker(mixer).train()
    expected = model()
    torch.compiler.reset()
    counter = CompileCounter()
    model.model.compile(backend=counter, fullgraph=True)
    torch.testing.assert_close(model(), expected)
    assert counter.frame_count == 1
