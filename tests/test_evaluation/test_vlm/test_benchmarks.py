"""The benchmarks by name, and images of their samples."""

import pytest
from PIL import Image

from mmtransmamba.evaluation import vlm
from mmtransmamba.evaluation.vlm import (
    BENCHMARKS,
    POPEMetric,
    PredictionError,
    VLMSample,
    from_files,
    from_model,
    load_images,
    run_benchmark,
    score,
)
from mmtransmamba.registry import METRICS


def test_all_metrics_are_registered():
    names = [name for name in vlm.__all__ if name.endswith('Metric')]
    names.remove('AnswerMetric')
    assert len(names) == 12
    for name in names:
        assert METRICS.get(f'mmtransmamba.{name}') is getattr(vlm, name)
    assert {b.metric.__name__ for b in BENCHMARKS.values()} == set(names)


def test_headlines_have_the_prefix_of_their_metric():
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        for key in benchmark.headline:
            assert key.startswith(f'{benchmark.metric.default_prefix}/')


@pytest.fixture
def root(tmp_path, write):
    question = dict(
        imageId='n1',
        question='Is it?',
        answer='yes',
        types=dict(structural='verify', semantic='global'),
    )
    document = {str(i): question for i in range(4)}
    write(tmp_path / 'gqa' / 'testdev_balanced_questions.json', document)
    return tmp_path


def test_from_a_model_and_again_from_its_file(root):
    def answer(batch):
        return ['Yes' if s.question_id == '0' else 'No' for s in batch]

    gqa = BENCHMARKS['gqa']
    result = run_benchmark(gqa, root, from_model(answer, root / 'out', batch_size=3))
    assert (result.count, result.headline) == (4, {'accuracy': 25.0})
    answers = from_files({'gqa': root / 'out' / 'gqa.jsonl'})
    assert run_benchmark(gqa, root, answers).figures == result.figures
    first = run_benchmark(gqa, root, answers, limit=1)
    assert (first.count, first.headline) == (1, {'accuracy': 100.0})
    assert first.note == 'answers to other questions: 3'
    own = from_model(None, root / 'out')  # all is answered
    assert run_benchmark(gqa, root, own, limit=1).figures == first.figures


def test_answers_to_unknown_questions_are_refused(root, write):
    rows = [dict(question_id=str(n), text='Yes') for n in (*range(4), 9)]
    path = write(root / 'x.jsonl', rows)
    for limit in (None, 1):
        with pytest.raises(
            PredictionError, match=r'line 5, .* question 9, which is none'
        ):
            run_benchmark(BENCHMARKS['gqa'], root, from_files({'gqa': path}), limit)


def test_questions_of_other_parts_are_known(tmp_path, write):
    """Files hold the answers to all of a benchmark, of which a part is scored."""
    turns = [{'value': '?\nA. x\nB. y'}, {'value': 'A'}]
    items = [
        dict(id='1', image='x', conversations=turns),
        dict(id='2', conversations=turns),
    ]
    write(tmp_path / 'scienceqa' / 'llava_test_CQM-A.json', items)
    rows = [dict(question_id=n, text='A') for n in (1, 2)]
    path = write(tmp_path / 'a.jsonl', rows)
    benchmark = BENCHMARKS['scienceqa_img']
    answers = from_files({'scienceqa_img': path})
    assert run_benchmark(benchmark, tmp_path, answers).note.endswith(': 1')
    write(path, [*rows, dict(question_id=3, text='A')])
    with pytest.raises(PredictionError, match='question 3'):
        run_benchmark(benchmark, tmp_path, answers)


@pytest.mark.parametrize(
    'name, others, unknown',
    [
        ('seed_image', ['v12', '49914'], ['12', 'v', 'x12']),
        ('mmmu', ['dev_Art_1', 'test_Math_3'], ['validation_Art_1', 'x']),
        ('vqav2_testdev', [], ['1']),
    ],
)
def test_ids_of_other_parts(name, others, unknown, tmp_path):
    known = BENCHMARKS[name].has_others(tmp_path)
    assert all(map(known, others)) and not any(map(known, unknown))


def test_nothing_to_score():
    with pytest.raises(ValueError, match='POPEMetric: 0 answers to 0 questions'):
        score(POPEMetric(), [], [])


def test_no_files(tmp_path):
    message = r'gqa has none of llava_gqa_testdev_balanced\.jsonl, questions\.jsonl'
    with pytest.raises(FileNotFoundError, match=message):
        run_benchmark(BENCHMARKS['gqa'], tmp_path, from_files({}))


def test_images(tmp_path):
    Image.new('L', (4, 3), 7).save(tmp_path / 'grey.png')
    sample = VLMSample('1', '?', images=('grey.png', 'grey.png'))
    loaded = load_images(sample, tmp_path)
    assert [(i.mode, i.size) for i in loaded] == [('RGB', (4, 3))] * 2


def test_images_are_upright_and_not_clipped(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('I;16', (4, 3), 32896).save(tmp_path / 'x.png', exif=exif)
    content = (tmp_path / 'x.png').read_bytes()
    for image in load_images(VLMSample('1', '?', images=('x.png', content)), tmp_path):
        assert image.size == (3, 4) and image.getpixel((0, 0)) == (128, 128, 128)


def test_images_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'question 1: there is no image at'):
        load_images(VLMSample('1', '?', images=('x.png',)), tmp_path)
    (tmp_path / 'x.png').write_text('text')
    with pytest.raises(ValueError, match=r'question 1: the image in .*x\.png cannot'):
        load_images(VLMSample('1', '?', images=('x.png',)), tmp_path)
    with pytest.raises(ValueError, match='the annotations cannot be read'):
        load_images(VLMSample('1', '?', images=(b'text',)), tmp_path)
