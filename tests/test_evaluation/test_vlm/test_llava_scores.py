"""The real answers of LLaVA-1.5-13B give the scores that are known for them."""

import json

import pytest

from mmtransmamba.evaluation.vlm import (
    BENCHMARKS,
    MathVistaMetric,
    MMMUMetric,
    ScienceQAMetric,
    SEEDBenchMetric,
    from_files,
    load_mathvista,
    load_mmmu,
    load_science_qa,
    load_seed_bench,
    read_predictions,
    run_benchmark,
    score,
)
from mmtransmamba.evaluation.vlm.files import read_rows
from mmtransmamba.evaluation.vlm.mmmu_parser import parse_choice, parse_open

# What the file of scores that comes with the answers says; four decimals.
EXPECTED = {
    'pope': {
        'pope/f1': 85.9469,
        'pope/random/accuracy': 88.0069,
        'pope/random/precision': 97.4444,
        'pope/random/recall': 78.8,
        'pope/random/f1': 87.1360,
        'pope/random/yes_ratio': 41.6838,
        'pope/popular/accuracy': 87.4333,
        'pope/popular/precision': 95.2458,
        'pope/popular/recall': 78.8,
        'pope/popular/f1': 86.2459,
        'pope/popular/yes_ratio': 41.3667,
        'pope/adversarial/accuracy': 85.5,
        'pope/adversarial/precision': 90.9931,
        'pope/adversarial/recall': 78.8,
        'pope/adversarial/f1': 84.4587,
        'pope/adversarial/yes_ratio': 43.3,
    },
    'mme': {
        'mme/perception': 1531.3187,
        'mme/cognition': 295.3571,
        'mme/existence': 185.0,
        'mme/count': 155.0,
        'mme/position': 133.3333,
        'mme/color': 170.0,
        'mme/posters': 160.5442,
        'mme/celebrity': 152.9412,
        'mme/scene': 161.25,
        'mme/landmark': 170.5,
        'mme/artwork': 117.75,
        'mme/OCR': 125.0,
        'mme/commonsense_reasoning': 127.8571,
        'mme/numerical_calculation': 42.5,
        'mme/text_translation': 77.5,
        'mme/code_reasoning': 47.5,
    },
    'mmbench': {'mmbench/circular': 67.6871, 'mmbench/plain': 75.4252},
    'seed_image': {
        'seed/accuracy': 68.2055,
        'seed/Scene Understanding': 74.8575,
        'seed/Instance Identity': 71.3271,
        'seed/Instance Attributes': 68.8535,
        'seed/Instance Location': 63.4969,
        'seed/Instances Counting': 61.3404,
        'seed/Spatial Relation': 51.4460,
        'seed/Instance Interaction': 73.1959,
        'seed/Visual Reasoning': 77.0393,
        'seed/Text Understanding': 59.5238,
    },
    'mmmu': {'mmmu/accuracy': 36.6667, 'mmmu/multiple_choice': 38.7249},
    'scienceqa_img': {'science_qa/image': 71.6411},
    'textvqa': {'textvqa/accuracy': 61.2540},
    'gqa': {'gqa/accuracy': 63.3090},
    'mm_vet': {
        'mm_vet/run_1': 36.1009,
        'mm_vet/run_2': 36.5138,
        'mm_vet/run_3': 36.3303,
    },
}
COUNTS = {
    'pope': 8910,
    'mme': 2374,
    'mmbench': 4377,
    'seed_image': 14232,
    'mmmu': 900,
    'scienceqa_img': 2017,
    'textvqa': 5000,
    'gqa': 12578,
    'mm_vet': 218,
}


def answers_of(folder):
    (file,) = folder.glob('*answers_*.jsonl*')
    return file


@pytest.mark.parametrize('name', EXPECTED)
def test_official_score(vlm_eval, name):
    benchmark = BENCHMARKS[name]
    folder = vlm_eval / benchmark.folder
    options = {}
    if name == 'mm_vet':
        options['grades'] = folder / 'gpt4_grades_llava-v1.5-13b.json'
    answers = from_files({name: answers_of(folder)})
    result = run_benchmark(benchmark, vlm_eval, answers, **options)
    assert result.count == COUNTS[name]
    found = {key: result.figures[key] for key in EXPECTED[name]}
    assert found == pytest.approx(EXPECTED[name], abs=5.1e-5)
    assert result.headline


def test_counts_behind_the_percentages(vlm_eval):
    """That many are right, not about so many; of TextVQA in soft points."""
    for name, key, right, total in (
        ('mmmu', 'mmmu/accuracy', 330, 900),
        ('mmbench', 'mmbench/circular', 796, 1176),
        ('textvqa', 'textvqa/accuracy', 3062.7, 5000),
    ):
        benchmark = BENCHMARKS[name]
        answers = from_files({name: answers_of(vlm_eval / benchmark.folder)})
        figures = run_benchmark(benchmark, vlm_eval, answers).figures
        assert figures[key] * total / 100 == pytest.approx(right, abs=1e-6)


def test_seed_videos(vlm_eval):
    samples = load_seed_bench(vlm_eval / 'seed_bench', part='video')
    texts, left_over = read_predictions(samples, answers_of(vlm_eval / 'seed_bench'))
    assert (len(samples), left_over) == (3757, 19242 - 3757)
    figures = score(SEEDBenchMetric(), samples, texts)
    assert figures['seed/accuracy'] == pytest.approx(42.3210, abs=5.1e-5)


def test_science_qa_without_images_too(vlm_eval):
    samples = load_science_qa(vlm_eval / 'scienceqa', part='all')
    texts, left_over = read_predictions(samples, answers_of(vlm_eval / 'scienceqa'))
    assert (len(samples), left_over) == (4241, 0)
    figures = score(ScienceQAMetric(), samples, texts)
    assert figures['science_qa/accuracy'] == pytest.approx(74.3928, abs=5.1e-5)
    assert figures['science_qa/image'] == pytest.approx(71.6411, abs=5.1e-5)


def test_mmmu_guesses_are_the_official_ones(vlm_eval):
    """Two answers point to no option; the official run guessed A for both."""
    samples = load_mmmu(vlm_eval / 'mmmu')
    texts, _ = read_predictions(samples, answers_of(vlm_eval / 'mmmu'))
    figures = score(MMMUMetric(), samples, texts)
    assert figures['mmmu/guessed'] == pytest.approx(100 * 2 / 900)
    others = {
        score(MMMUMetric(seed), samples, texts)['mmmu/accuracy'] for seed in range(8)
    }
    assert len(others) > 1


def test_mmmu_parser_agrees_with_the_official_one(vlm_eval):
    """The answer file also has what the official parser made of each text."""
    parsed = {r['id']: r for r in read_rows(answers_of(vlm_eval / 'mmmu'))}
    guessed = 0
    for sample in load_mmmu(vlm_eval / 'mmmu'):
        row = parsed[sample.question_id]
        if sample.options:
            letter = parse_choice(row['text'], sample.options)
            guessed += letter is None
            assert letter in (row['parsed'], None)
        else:
            # Of the candidates the file names one.
            assert row['parsed'] in map(str, parse_open(row['text']))
    assert guessed == 2


def test_mathvista_gold_in_every_wording(vlm_eval):
    samples = load_mathvista(vlm_eval / 'mathvista')
    assert len(samples) == 1000
    for wording in (
        '{}',
        'The answer is {}.',
        'First 3, then 4 (A). Final answer: {}',
        '**Answer:** {}',
    ):
        texts = [wording.format(sample.gold) for sample in samples]
        figures = score(MathVistaMetric(), samples, texts)
        assert figures['mathvista/accuracy'] == 100, wording
    letters = [
        f'It is ({"ABCDEFGH"[s.options.index(s.gold)]})' if s.options else s.gold
        for s in samples
    ]
    figures = score(MathVistaMetric(), samples, letters)
    assert figures['mathvista/accuracy'] == 100


def test_a_wrong_answer_counts(vlm_eval, tmp_path):
    """One changed answer of POPE's first split changes the score by its share."""
    answers = read_rows(answers_of(vlm_eval / 'pope'))
    (changed,) = [r for r in answers if r['question_id'] == 1]
    changed['text'] = 'No' if changed['text'] == 'Yes' else 'Yes'
    path = tmp_path / 'answers.jsonl'
    path.write_text('\n'.join(json.dumps(row) for row in answers))
    result = run_benchmark(BENCHMARKS['pope'], vlm_eval, from_files({'pope': path}))
    difference = result.figures['pope/adversarial/accuracy'] - 85.5
    assert abs(difference) == pytest.approx(100 / 3000)
