"""Heads: the loss of the words, and answers to questions."""

import pytest
import torch
from tiny_llavas import VOCAB, hybrid_llava, question_batch
from tiny_vlms import tiny_processor

from mmtransmamba.models.multimodal import AnswerHead
from mmtransmamba.registry import MODELS


class Says:
    """A model whose answers are known."""

    def __init__(self, *answers: str) -> None:
        self.answers = answers

    def generate(self, input_ids, **settings):
        self.settings = settings
        tokenizer = tiny_processor().tokenizer
        rows = [
            torch.tensor(tokenizer.encode(answer) + [2, 0, 0, 0])[:8]
            for answer in self.answers
        ]
        return torch.cat((input_ids, torch.stack(rows)), dim=1)


def ask(head, model, batch=None):
    batch = batch or question_batch(['Red?', 'How many?'], ['yes', '3'])
    return head.predict(model, tiny_processor(), batch)


def test_predictions_beside_the_right_answers():
    model = Says('no. ', '3   ')
    first, second = ask(MODELS.build(dict(type='mmtransmamba.AnswerHead')), model)
    assert first == dict(
        prediction='no.', answer='yes', question_id='0', category='any', text='no. '
    )
    assert (second['prediction'], second['answer']) == ('3', '3')
    assert set(model.settings) >= {'attention_mask', 'pixel_values', 'max_new_tokens'}
    assert not {'answers', 'categories', 'labels'} & set(model.settings)
    assert model.settings['pad_token_id'] == 0


def test_without_names_of_the_questions():
    batch = question_batch(['a', 'b'])
    del batch['question_ids'], batch['categories']
    first, _ = ask(AnswerHead(), Says('x  y', 'z   '), batch)
    assert first['question_id'] == first['category'] == ''


def test_an_answer_ends_at_a_stop_string():
    head = AnswerHead(stop_strings=['\n', '###'])
    assert head.answer_of(' two\nUSER: and') == 'two'
    assert head.answer_of('a###b\nc') == 'a'
    assert head.answer_of('abc ') == 'abc'


def test_generation_stops_at_a_stop_string():
    model = hybrid_llava()
    free = AnswerHead(max_new_tokens=12, min_new_tokens=12)
    batch = question_batch(['Red?'])
    (text,) = (p['text'] for p in free.predict(model, tiny_processor(), batch))
    stop = text[4]
    head = AnswerHead(max_new_tokens=12, stop_strings=[stop])
    (stopped,) = head.predict(model, tiny_processor(), batch)
    end = text.index(stop)
    assert stopped['text'] == text[: end + 1]
    assert stopped['prediction'] == text[:end].strip()


@pytest.mark.parametrize('settings', [dict(), dict(num_beams=3)])
def test_a_batch_answers_as_its_questions_alone(settings):
    model, head = hybrid_llava(), AnswerHead(max_new_tokens=6, **settings)
    texts = ['Red?', 'How many circles?']
    both = head.predict(model, tiny_processor(), question_batch(texts))
    batch = question_batch(texts)
    for i, text in enumerate(texts):
        alone = question_batch([text])
        alone['pixel_values'] = batch['pixel_values'][i : i + 1]
        (prediction,) = head.predict(model, tiny_processor(), alone)
        assert prediction['text'] == both[i]['text']


def test_sampling_settings_reach_the_model():
    model = Says('a   ', 'b   ')
    ask(AnswerHead(do_sample=True, temperature=0.2), model)
    assert model.settings['do_sample'] and model.settings['temperature'] == 0.2
    ask(AnswerHead(), model)
    # Those of the model's own generation config are of no use to a greedy search.
    assert model.settings['temperature'] is None
    assert not model.settings['do_sample']


@pytest.mark.parametrize(
    'settings',
    [
        *(dict(repetition_penalty=5.0), dict(no_repeat_ngram_size=1)),
        *(
            dict(num_return_sequences=2, num_beams=2),
            dict(return_dict_in_generate=True),
        ),
    ],
)
def test_a_greedy_answer_is_the_likeliest_whatever_the_folder_says(settings):
    model, head = hybrid_llava(), AnswerHead(max_new_tokens=8)
    batch = question_batch(['Red?', 'How many?'])
    for name in ('answers', 'question_ids', 'categories'):
        del batch[name]
    expected = head.generate(model, tiny_processor(), batch)
    own = model.generation_config
    for name, value in settings.items():
        setattr(own, name, value)
    assert head.generate(model, tiny_processor(), batch) == expected
    assert model.generation_config is own
    # What is asked for counts, and tokens that no answer may have.
    asked = AnswerHead(max_new_tokens=8, repetition_penalty=5.0)
    assert asked.generate(model, tiny_processor(), batch) != expected
    own.suppress_tokens = tiny_processor().tokenizer.encode(expected[0])
    assert head.generate(model, tiny_processor(), batch)[0] != expected[0]


def test_prompts_padded_on_the_right_are_refused():
    batch = question_batch(['Red?', 'How many?'], side='right')
    with pytest.raises(ValueError, match="side='left'"):
        ask(AnswerHead(), Says('a', 'b'), batch)


def test_the_loss_counts_the_words_that_have_labels():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, VOCAB)
    labels = torch.tensor([[-100, -100, 7, 8, 2], [-100, 9, 2, -100, -100]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    loss = AnswerHead().loss(logits, labels, mask)['loss_task']
    terms = [(0, 1, 7), (0, 2, 8), (0, 3, 2), (1, 0, 9), (1, 1, 2)]
    expected = -sum(logits[i, j].log_softmax(0)[k] for i, j, k in terms) / 5
    torch.testing.assert_close(loss, expected)
    assert not list(AnswerHead().parameters())
