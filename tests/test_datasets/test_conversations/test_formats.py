"""Which image belongs to which place in a conversation."""

import pytest

from mmtransmamba.datasets.conversations.conversation import BadSampleError
from mmtransmamba.datasets.conversations.formats import messages

TEXT = {'type': 'text', 'text': 'What?'}


def place(path=None):
    return {'type': 'image'} if path is None else {'type': 'image', 'path': path}


def row(*questions, **fields):
    turns = []
    for parts in questions:
        turns.append(dict(role='user', content=[*parts, TEXT]))
        turns.append(dict(role='assistant', content='This.'))
    return dict(messages=turns, **fields)


@pytest.mark.parametrize(
    ('questions', 'listed', 'expected'),
    [
        ([[place('a')], [place()]], ['b'], ['a', 'b']),
        ([[place()], [place('a')]], ['b'], ['b', 'a']),
        ([[place(), place('a'), place()]], ['b', 'c'], ['b', 'a', 'c']),
        ([[place('a')], [place('b')]], [], ['a', 'b']),
        ([[place()], [place()]], ['a', 'b'], ['a', 'b']),
        ([[], []], ['a', 'b'], ['a', 'b']),  # before the first question
    ],
)
def test_images_of_messages_are_in_the_order_of_their_places(
    questions, listed, expected
):
    found = messages(row(*questions, images=listed))
    assert found.images == expected
    assert sum(turn.text.count('<image>') for turn in found.turns) == len(expected)


@pytest.mark.parametrize(
    ('questions', 'listed'),
    [
        ([[place('a')], [place()]], []),
        ([[place('a')], [place()]], ['b', 'c']),
        ([[], [place()]], ['b', 'c']),
    ],
)
def test_as_many_images_as_places_make_a_good_sample(questions, listed):
    with pytest.raises(BadSampleError):
        messages(row(*questions, images=listed)).check(True)
