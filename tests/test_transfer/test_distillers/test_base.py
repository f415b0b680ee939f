"""Common behaviour of all distillers and terms."""

import ast
import inspect

import pytest
import torch
from step_batches import TERMS, model_of
from tiny_distillers import LAYER
from tiny_distillers import build as distil_images
from torch import nn

from mmtransmamba.models import student_kinds
from mmtransmamba.models.student_kinds import Classifier, StudentKind, kind_of
from mmtransmamba.models.trainable.step_average import KEPT, PREDICTED
from mmtransmamba.registry import MODELS, STUDENT_KINDS
from mmtransmamba.transfer import distillers
from mmtransmamba.transfer.distillers import LanguageDistiller, MultiDirectionDistiller
from mmtransmamba.transfer.distillers.base import Distiller, scaled_losses
from mmtransmamba.transfer.terms import Term
from mmtransmamba.transfer.terms.language import ForcedTerm, ModelTerm

BOTH = [LanguageDistiller, MultiDirectionDistiller]


def registered(kind):
    MODELS.import_from_location()
    found = MODELS.module_dict.values()
    return [m for m in found if isinstance(m, type) and issubclass(m, kind)]


@pytest.mark.parametrize('term', registered(Term))
def test_every_term_is_bound_to_a_pair_and_called_with_a_batch(term):
    assert list(inspect.signature(term.bind).parameters) == ['self', 'pair']
    assert list(inspect.signature(term.forward).parameters) == ['self', 'batch']


@pytest.mark.parametrize('distiller', registered(Distiller))
@pytest.mark.parametrize('name', ['teacher', '_apply', 'layer_weights', 'active'])
def test_no_distiller_has_its_own_copy(distiller, name):
    assert name in vars(Distiller)
    assert name not in vars(distiller)


def test_all_distillers_are_on_the_base():
    assert set(registered(Distiller)) == set(BOTH)


class Halves(Term):
    parts = ('entropy',)

    def forward(self, batch):
        return {'': self.weight * batch, 'entropy': batch}


def test_losses_are_named_by_term_and_part_and_scaled():
    term = Halves(weight=3.0)
    term.scale = 0.5
    assert list(scaled_losses('layer', term, torch.tensor(2.0))) == [
        ('loss_layer', '', 3.0),
        ('loss_layer_entropy', 'entropy', 1.0),
    ]


def test_a_part_that_a_term_does_not_declare_is_refused():
    term = Halves()
    term.parts = ('rest',)
    with pytest.raises(ValueError, match="Halves returns a loss 'entropy', which is"):
        list(scaled_losses('layer', term, torch.tensor(2.0)))


OF_IMAGES = dict(type='mmtransmamba.FeatureTerm')
OF_TOKENS = TERMS['kl']


def distil_text(terms):
    model = model_of('kl')
    return LanguageDistiller(model.student, model.teacher, terms)


@pytest.mark.parametrize(
    ('distil', 'right', 'wrong'),
    [
        *((distil_text, OF_TOKENS, t) for t in ('AttentionMapTerm', 'FeatureTerm')),
        *((distil_text, OF_TOKENS, t) for t in ('LayerTerm', 'DirectionTerm')),
        *((distil_images, OF_IMAGES, t) for t in ('NextTokenTerm', 'TokenKLTerm')),
        *(
            (distil_images, OF_IMAGES, t)
            for t in ('MixerOutputTerm', 'MixingMatrixTerm')
        ),
        (distil_images, OF_IMAGES, 'HiddenStatesTerm'),
    ],
)
def test_a_term_of_another_distiller_is_refused(distil, right, wrong):
    with pytest.raises(ValueError) as error:
        distil(dict(kept=right, other=dict(type=f'mmtransmamba.{wrong}')))
    message = str(error.value)
    assert f'terms.other is a {wrong}, which it does not compute' in message
    types = message.split('its types are ')[1].rstrip('.').split(', ')
    assert right['type'].rpartition('.')[2] in types and wrong not in types


def test_a_term_of_ones_own_is_computed_or_refused():
    with pytest.raises(ValueError, match='terms.own is a Halves, which it does not'):
        distil_text(dict(kl=OF_TOKENS, own=dict(type=Halves)))
    for kind in registered((ModelTerm, ForcedTerm)):
        assert kind.unit in (KEPT, PREDICTED)
    assert ModelTerm.unit == PREDICTED


@pytest.mark.parametrize(
    ('distil', 'terms'),
    [
        (distil_text, dict(kl=OF_TOKENS | dict(task_weight=0.5), kl_task=OF_TOKENS)),
        (distil_text, dict(hidden_entropy=OF_TOKENS, hidden=TERMS['hidden'])),
        (distil_images, dict(layer_entropy=OF_IMAGES, layer=LAYER)),
    ],
)
def test_no_term_has_the_name_of_anothers_loss(distil, terms):
    with pytest.raises(ValueError, match='_(task|entropy) has the name of a loss of'):
        distil(terms)


@pytest.mark.parametrize('factor', [-1.0, float('nan'), float('inf')])
def test_the_factor_of_all_terms_is_checked(factor):
    with pytest.raises(ValueError, match=f'distill_weight={factor} must be a number'):
        distil_images(dict(feature=OF_IMAGES), distill_weight=factor)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Identity()
        self.loss = lambda inputs, samples: {}


def test_a_family_of_models_joins_with_its_own_kind():
    with pytest.raises(KeyError):
        STUDENT_KINDS.module_dict['OwnKind']

    @STUDENT_KINDS.register_module()
    class OwnKind(StudentKind):
        members = 'a model of the test'

        @staticmethod
        def includes(student):
            return isinstance(student, Own)

        feature_dim = step = layer_depth = staticmethod(lambda *args: None)

    try:
        assert type(kind_of(Own())) is OwnKind
        with pytest.raises(ValueError, match='Linear must be .*a model of the test'):
            kind_of(nn.Linear(1, 1))
    finally:
        del STUDENT_KINDS.module_dict['OwnKind']
    assert type(kind_of(Own())).__name__ == 'DensePredictor'


@pytest.mark.parametrize('module', [student_kinds, distillers.multi_direction])
def test_the_generic_distiller_imports_no_family_of_models(module):
    tree = ast.parse(inspect.getsource(module))
    imported = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert not [name for name in imported if 'retrieval' in name]
    assert 'Classifier' in STUDENT_KINDS.module_dict and Classifier.members
