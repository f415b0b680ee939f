"""Common behaviour of all distillers and terms."""

import ast
import inspect

import pytest
import torch
from torch import nn

from mmtransmamba.models import student_kinds
from mmtransmamba.models.student_kinds import Classifier, StudentKind, kind_of
from mmtransmamba.registry import MODELS, STUDENT_KINDS
from mmtransmamba.transfer import distillers
from mmtransmamba.transfer.distillers import LanguageDistiller, MultiDirectionDistiller
from mmtransmamba.transfer.distillers.base import Distiller, scaled_losses
from mmtransmamba.transfer.terms import Term

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
    def forward(self, batch):
        return {'': self.weight * batch, 'entropy': batch}


def test_losses_are_named_by_term_and_part_and_scaled():
    term = Halves(weight=3.0)
    term.scale = 0.5
    assert list(scaled_losses('layer', term, torch.tensor(2.0))) == [
        ('loss_layer', '', 3.0),
        ('loss_layer_entropy', 'entropy', 1.0),
    ]


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
