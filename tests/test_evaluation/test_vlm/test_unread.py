"""The share of answers that a benchmark's rule could not read."""

import pytest

from mmtransmamba.evaluation.vlm import (
    BENCHMARKS,
    AI2DMetric,
    GQAMetric,
    MathVistaMetric,
    MMBenchMetric,
    MMEMetric,
    MMMUMetric,
    POPEMetric,
    ScienceQAMetric,
    SEEDBenchMetric,
    VLMSample,
    score,
)
from mmtransmamba.evaluation.vlm.mme import COGNITION, PERCEPTION

OPTIONS = ('cat', 'dog', 'cow')


def choices(count, **fields):
    return [
        VLMSample(str(n), '?', 'A', options=OPTIONS, **fields) for n in range(count)
    ]


@pytest.mark.parametrize('metric', [MMBenchMetric, AI2DMetric, SEEDBenchMetric])
def test_own_rules_read_what_is_decorated(metric):
    texts = ['**A**', 'The answer is A. B and C are wrong.', 'B', 'A or B', '']
    found = score(metric(), choices(5), texts)
    assert found[f'{metric.default_prefix}/unread'] == 40
    if metric is not MMBenchMetric:
        assert found[f'{metric.default_prefix}/accuracy'] == 40


@pytest.mark.parametrize(
    'text, right, unread',
    [('A', 1, 0), ('A. cat', 1, 0), ('(A)', 0, 1), ('**A**', 0, 1), ('C', 0, 0)],
)
def test_science_qa_keeps_its_rule_and_counts(text, right, unread):
    found = score(ScienceQAMetric(), choices(1), [text])
    assert found['science_qa/accuracy'] == 100 * right
    assert found['science_qa/unread'] == 100 * unread


@pytest.mark.parametrize(
    'text, yes, unread',
    [
        ('Yes', 1, 0),
        ('no', 0, 0),
        ('There is not a dog', 0, 0),
        # The rule takes these for a yes, which they do not say.
        ('NO', 1, 1),
        ('**No**', 1, 1),
        ('No\nthere is none', 1, 1),
        ('no!', 1, 1),
        ('There is a dog', 1, 1),
        ('', 1, 1),
        # And this for a no.
        ('Yes, it is not small', 0, 1),
    ],
)
def test_pope_keeps_its_rule_and_counts(text, yes, unread):
    sample = VLMSample('random/1', '?', 'yes', category='random')
    found = score(POPEMetric(), [sample], [text])
    assert found['pope/accuracy'] == 100 * yes
    assert found['pope/unread'] == 100 * unread


@pytest.mark.parametrize(
    'text, points, unread',
    [
        ('Yes', 1, 0),
        ('"Yes"', 1, 0),
        ('The answer is yes.', 0, 1),  # other
        ('Notably, yes', 0, 1),  # no
        ('No', 0, 0),
    ],
)
def test_mme_keeps_its_rule_and_counts(text, points, unread):
    samples = [
        VLMSample(f'{c}/1', q, 'yes', (f'{c}/1.jpg',), category=c)
        for c in PERCEPTION + COGNITION
        for q in 'ab'
    ]
    found = score(MMEMetric(), samples, [text] * len(samples))
    assert found['mme/perception'] == 2000 * points
    assert found['mme/unread'] == 100 * unread


def test_mmmu_counts_guesses_and_empty_answers():
    samples = [
        *choices(2, category='Math'),
        VLMSample('x', '?', ['4'], category='Math'),
    ]
    found = score(MMMUMetric(), samples, ['(A)', 'no idea', ' '])
    assert found['mmmu/unread'] == pytest.approx(200 / 3)
    assert found['mmmu/guessed'] == pytest.approx(100 / 3)


def test_mathvista_counts_what_it_did_not_extract():
    info = dict(kind='integer', precision=0)
    samples = [VLMSample(str(n), '?', '4', category='x', info=info) for n in range(2)]
    found = score(MathVistaMetric(), samples, ['four', '4'])
    assert (found['mathvista/extracted'], found['mathvista/unread']) == (50, 50)


def test_gqa_counts_answers_to_yes_no_questions_and_empty_ones():
    info = dict(structural='verify', semantic='rel')
    samples = [VLMSample(str(n), '?', 'no', info=info) for n in range(3)]
    samples.append(VLMSample('3', '?', 'red', info=info))
    found = score(GQAMetric(), samples, ['No.', 'Yes', 'No, there is none', ''])
    assert (found['gqa/accuracy'], found['gqa/unread']) == (25, 50)


def test_what_llava_said_was_nearly_always_read(vlm_eval):
    """Official scores are the same; the share tells how much they rest on the rule."""
    from mmtransmamba.evaluation.vlm import from_files, run_benchmark

    wanted = dict(mme=100 * 11 / 2374, mmbench=0, mmmu=100 * 2 / 900, gqa=0)
    for name, share in wanted.items():
        benchmark = BENCHMARKS[name]
        (file,) = (vlm_eval / benchmark.folder).glob('*answers_*.jsonl*')
        result = run_benchmark(benchmark, vlm_eval, from_files({name: file}))
        assert result.unread == pytest.approx(share)
        assert f'{benchmark.metric.default_prefix}/unread' in result.figures
