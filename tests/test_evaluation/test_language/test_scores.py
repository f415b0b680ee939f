"""Likelihoods and scores against sums written out."""

import json
import math

import pytest
import torch
from language_models import VOCAB, make_hybrid, make_teacher

from mmtransmamba.apis.lm_benchmarks import evaluate_lm
from mmtransmamba.evaluation.language import (
    Question,
    Task,
    evaluate_task,
    log_likelihoods,
    relative_recovery,
)
from mmtransmamba.evaluation.language.answering import Answers
from mmtransmamba.evaluation.language.likelihood import Likelihood, encode_pair
from mmtransmamba.evaluation.language.scores import METRICS

PAIRS = [
    ([3, 4, 5], [6]),
    ([3], [7, 8, 9, 10]),
    ([4, 4, 4, 4, 4, 4], [5, 6]),
    ([3, 4, 5], [6]),
]


class Letters:
    """A tokenizer of letters that puts a token of its own in front."""

    bos_token_id, eos_token_id = 1, 2

    def encode(self, text, add_special_tokens=True):
        ids = [3 + ord(letter) % 26 for letter in text]
        return [1, *ids] if add_special_tokens else ids


def plain(model, before, after):
    """Log-likelihood and whether it is greedy, one token at a time."""
    total, greedy = 0.0, True
    for i, token in enumerate(after):
        with torch.no_grad():
            logits = model(torch.tensor([before + after[:i]])).logits[0, -1].double()
        total += float(logits.log_softmax(-1)[token])
        greedy &= int(logits.argmax()) == token
    return total, greedy


@pytest.mark.parametrize('batch_tokens', [1, 8, 4096])
@pytest.mark.parametrize('kind', ['teacher', 'hybrid'])
def test_likelihoods_equal_those_token_by_token(kind, batch_tokens):
    model = make_teacher()
    model = model if kind == 'teacher' else make_hybrid(model).eval()
    found = log_likelihoods(model, PAIRS, batch_tokens)
    for likelihood, pair in zip(found, PAIRS, strict=True):
        total, greedy = plain(model, *pair)
        assert likelihood.log == pytest.approx(total, rel=1e-4)
        assert likelihood.greedy == greedy
        assert likelihood.tokens == len(pair[1])


@pytest.mark.parametrize(
    'pairs, rows',
    [
        ([([3, 4], [5]), ([3, 4], [6]), ([3, 4], [7])], 1),
        ([([3, 4], [5, 6]), ([3, 4], [5, 7]), ([3], [4, 5, 8])], 1),
        ([([3, 4], [5, 6]), ([3, 4], [6, 6])], 2),
        ([([3, 4], [5]), ([3, 4], [5, 6])], 2),
    ],
)
def test_pairs_that_differ_in_their_last_token_are_one_row(pairs, rows, monkeypatch):
    model = make_teacher()
    expected = [plain(model, *pair) for pair in pairs]
    seen = []
    forward = model.forward

    def watched(input_ids, **kwargs):
        seen.append(len(input_ids))
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, 'forward', watched)
    found = log_likelihoods(model, pairs)
    assert sum(seen) == rows
    for likelihood, (total, greedy) in zip(found, expected, strict=True):
        assert likelihood.log == pytest.approx(total, rel=1e-4)
        assert likelihood.greedy == greedy


def test_the_likeliest_continuation_is_greedy():
    model = make_teacher()
    with torch.no_grad():
        likeliest = int(model(torch.tensor([[3, 4]])).logits[0, -1].argmax())
    other = (likeliest + 1) % VOCAB
    first, second = log_likelihoods(model, [([3, 4], [likeliest]), ([3, 4], [other])])
    assert first.greedy and not second.greedy


def test_a_long_context_loses_its_first_tokens():
    model = make_teacher()
    (cut,) = log_likelihoods(model, [(list(range(3, 20)), [5, 6])], max_length=8)
    total, _ = plain(model, list(range(3, 20))[-7:], [5, 6])
    assert cut.log == pytest.approx(total, rel=1e-4)


def test_a_model_that_answers_nan_has_no_score():
    model = make_teacher()
    with torch.no_grad():
        model.lm_head.weight.mul_(float('inf'))
    with pytest.raises(ValueError, match=r'in torch.float32 answers NaN to pair \d'):
        log_likelihoods(model, PAIRS)


def test_a_model_whose_config_has_no_length_sees_everything():
    model = make_teacher()
    expected = log_likelihoods(model, PAIRS)
    del model.config.max_position_embeddings
    assert log_likelihoods(model, PAIRS) == expected


def test_an_empty_answer_is_not_chosen_by_its_length():
    question = Question.choose('Why?', ['', 'b'], 1)
    answers = Answers([Likelihood(-1.0, True, 1), Likelihood(-9.0, False, 1)])
    assert METRICS['acc_norm'](question, answers) == 1


@pytest.mark.parametrize('pair', [([], [3]), ([3], [])])
def test_nothing_to_score_is_refused(pair):
    with pytest.raises(ValueError, match='pair 0 has'):
        log_likelihoods(make_teacher(), [pair])


@pytest.mark.parametrize(
    'context, continuation, expected',
    [
        ('ab', ' c', ('ab', ' c')),
        ('ab ', 'c', ('ab', ' c')),
        ('ab \n', 'c', ('ab', ' \nc')),
    ],
)
def test_spaces_belong_to_the_continuation(context, continuation, expected):
    letters = Letters()
    before, after = encode_pair(letters, context, continuation)
    assert before == letters.encode(expected[0])
    assert after == letters.encode(expected[1], add_special_tokens=False)


def test_an_empty_context_is_the_first_token():
    assert encode_pair(Letters(), '', 'a') == ([1], [3 + ord('a') % 26])


def test_an_empty_context_needs_a_first_token():
    letters = Letters()
    letters.bos_token_id = letters.eos_token_id = None
    with pytest.raises(ValueError, match='Letters has neither bos_token nor eos_token'):
        encode_pair(letters, '', 'a')


class Scripted(torch.nn.Module):
    """A model that gives each letter the same probability at every place."""

    def __init__(self, probabilities):
        super().__init__()
        config = make_teacher().config
        self.config = config
        logits = torch.full((VOCAB + 3,), -20.0)
        for letter, probability in probabilities.items():
            logits[3 + ord(letter) % 26] = math.log(probability)
        self.logits = torch.nn.Parameter(logits)

    def forward(self, input_ids, use_cache=False):
        class Output:
            logits = self.logits.expand(*input_ids.shape, -1)

        return Output


def test_scores_of_a_model_with_known_probabilities():
    model = Scripted(dict(a=0.5, b=0.3, c=0.2))
    task = Task('', None, ('acc', 'acc_norm', 'greedy', 'perplexity'), 0.5)
    questions = [
        Question(('x', 'x'), ('b', 'aa'), 1, (1, 2)),  # .3 > .25, but .3 < .5 a letter
        Question(('x', 'x'), ('a', 'c'), 0, (1, 1)),
        Question(('x', 'x'), ('a', 'c'), 1, (1, 1)),
    ]
    result = evaluate_task(model, Letters(), task, questions)
    scores = {name: score.value for name, score in result.scores.items()}
    mean = (2 * math.log(0.5) + math.log(0.5) + math.log(0.2)) / 3
    assert scores == pytest.approx(
        dict(acc=1 / 3, acc_norm=2 / 3, greedy=2 / 3, perplexity=math.exp(-mean)),
        rel=1e-4,
    )
    error = math.sqrt((1 / 3) * (2 / 3) / 2)  # of a share of 1 in 3
    assert result.scores['acc'].error == pytest.approx(error, rel=1e-6)
    assert result.right == (False, True, False)


def test_recovery_is_the_share_of_the_lead():
    assert relative_recovery(0.4, 0.5, 0.25) == pytest.approx(0.6)
    assert math.isnan(relative_recovery(0.4, 0.25, 0.25))


def test_models_side_by_side(tmp_path):
    rows = [
        dict(goal='Open it', sol1='Pull', sol2='Push', label=i % 2) for i in range(4)
    ]
    lines = '\n'.join(json.dumps(row) for row in rows)
    (tmp_path / 'piqa_validation.jsonl').write_text(lines)
    teacher = make_teacher(vocab_size=32)
    models = [(teacher, Letters()), (make_hybrid(teacher), Letters())]
    comparison = evaluate_lm(models, ['piqa'], tmp_path)
    assert comparison.win_and_tie('model 0') == 1
    # The same question with either answer: half of them are right.
    assert comparison.average('model 0') == comparison.average('model 1') == 50
    assert math.isnan(comparison.recovery('model 1'))  # no lead over guessing
    table = comparison.table().splitlines()
    assert table[2].startswith('| piqa | acc | 4 | 50.00 ± 28.87 | 50.00 ± 28.87 |')
    comparison.save(tmp_path / 'scores.json')
    saved = json.loads((tmp_path / 'scores.json').read_text())
    assert saved['model 1']['tasks']['piqa']['questions'] == 4


def test_the_scores_before_a_model_that_fails_are_kept(tmp_path):
    row = dict(goal='Open it', sol1='Pull', sol2='Push', label=0)
    (tmp_path / 'piqa_validation.jsonl').write_text(json.dumps(row))
    models = [(make_teacher(vocab_size=32), Letters()) for _ in range(3)]
    torch.nn.init.constant_(models[1][0].model.norm.weight, math.nan)
    seen = []
    with pytest.raises(ValueError, match='NaN'):
        evaluate_lm(
            *(models, ['piqa'], tmp_path), after=lambda c: seen.append(list(c.results))
        )
    assert seen == [['model 0']]


def test_unknown_benchmark(tmp_path):
    with pytest.raises(ValueError, match='benchmark mmlu is unknown; accepted: arc_'):
        evaluate_lm([(make_teacher(), Letters())], ['mmlu'], tmp_path)
