"""MMBench, SEED-Bench, AI2D and ScienceQA."""

import base64
import io

import pytest
from PIL import Image

from mmtransmamba.evaluation.vlm import (
    AI2DMetric,
    MMBenchMetric,
    ScienceQAMetric,
    SEEDBenchMetric,
    VLMSample,
    load_ai2d,
    load_images,
    load_mmbench,
    load_science_qa,
    load_seed_bench,
    score,
)
from mmtransmamba.evaluation.vlm.science_qa import chosen_letter


def picture(colour='red'):
    buffer = io.BytesIO()
    Image.new('RGB', (9, 5), colour).save(buffer, 'PNG')
    return buffer.getvalue()


def rotation(index, gold, category='attribute'):
    options = ('cat', 'dog', 'cow', 'pig')
    return VLMSample(str(index), '?', gold, options=options, category=category)


class TestMMBench:
    def test_circular_is_all_or_nothing(self):
        samples = [
            rotation(7, 'A'),
            rotation(1_000_007, 'B'),
            rotation(2_000_007, 'C'),
            rotation(8, 'A', 'relation'),
            rotation(1_000_008, 'B', 'relation'),
        ]
        found = score(MMBenchMetric(), samples, ['A', 'B', 'D', 'A', 'B'])
        assert found == {
            'mmbench/circular': 50,
            'mmbench/plain': 100,
            'mmbench/unread': 0,
            'mmbench/attribute': 0,
            'mmbench/relation': 100,
        }

    def test_the_first_order_alone_does_not_suffice(self):
        samples = [rotation(7, 'A'), rotation(1_000_007, 'B')]
        assert score(MMBenchMetric(), samples, ['B', 'B'])['mmbench/circular'] == 0

    def test_official_table(self, tmp_path, write):
        image = base64.b64encode(picture()).decode()
        columns = 'index question hint A B C D answer category image'.split()
        rows = [
            [1, 'What "is"\n it?', 'nan', 'cat', 'dog', '', '', 'A', 'coarse', image],
            [1_000_001, 'Same?', 'Look.', 'dog', 'cat', 'nan', '', 'B', 'coarse', '1'],
        ]
        cell = '"{}"'.format
        table = [
            '\t'.join(cell(str(x).replace('"', '""')) for x in r)
            for r in [columns, *rows]
        ]
        write(tmp_path / 'mmbench_dev.tsv.gz', '\n'.join(table) + '\n')
        first, second = load_mmbench(tmp_path)
        assert first.prompt.startswith('What "is"\n it?\nA. cat\nB. dog\nAnswer')
        assert second.prompt.startswith('Look.\nSame?\nA. dog\nB. cat\n')
        assert first.options == ('cat', 'dog')
        # A row without an image of its own names the row that has it.
        assert first.images == second.images
        (loaded,) = load_images(second, 'nowhere')
        assert loaded.size == (9, 5)
        assert loaded.getpixel((0, 0)) == (255, 0, 0)


class TestSEEDBench:
    def test_the_first_letter_decides(self):
        samples = [VLMSample(str(i), '?', 'B', category=c) for i, c in enumerate('xxy')]
        found = score(SEEDBenchMetric(), samples, ['B', 'A or B', 'B. dog'])
        assert found == pytest.approx(
            {
                'seed/accuracy': 200 / 3,
                'seed/unread': 100 / 3,
                'seed/x': 50,
                'seed/y': 100,
            }
        )

    def test_official_file(self, tmp_path, write):
        question = {
            'question': 'How many?',
            'answer': 'C',
            'data_id': '12_34',
            'question_type_id': 5,
            **{f'choice_{a}': f'{n}' for n, a in enumerate('abcd')},
        }
        document = {
            'question_type': {'Scene Understanding': 1, 'Instances Counting': 5},
            'questions': [
                question | dict(question_id='1', data_type='image'),
                question | dict(question_id='v2', data_type='video'),
            ],
        }
        path = write(tmp_path / 'SEED-Bench.json', document)
        (sample,) = load_seed_bench(tmp_path)
        assert sample.options == ('0', '1', '2', '3')
        assert sample.images == ('12_34',)
        assert (sample.category, sample.gold) == ('Instances Counting', 'C')
        assert [s.question_id for s in load_seed_bench(path, 'video')] == ['v2']

    def test_missing_key(self, tmp_path, write):
        write(tmp_path / 'questions_gt.jsonl', [{'question_id': '1', 'answer': 'A'}])
        with pytest.raises(ValueError, match='record 1 has no "data_type", but ques'):
            load_seed_bench(tmp_path)


class TestAI2D:
    @pytest.fixture
    def folder(self, tmp_path, write):
        def question(number, lettered):
            return dict(
                questionId=f'7.png-{number}',
                answerTexts=['A', 'B', 'larva', 'egg'],
                correctAnswer=number,
                abcLabel=lettered,
            )

        for image in ('7', '8'):
            document = dict(
                imageName=f'{image}.png',
                questions={
                    'Which is it?': question(1, True),
                    'And this?': question(2, False),
                },
            )
            write(tmp_path / 'questions' / f'{image}.png.json', document)
        write(tmp_path / 'ai2d_test_ids.csv', '7\n')
        return tmp_path

    def test_official_files(self, folder):
        first, second = load_ai2d(folder)
        assert (first.question_id, first.gold, second.gold) == ('7.png-1', 'B', 'C')
        assert first.images == ('abc_images/7.png',)
        assert second.images == ('images/7.png',)
        first, _ = load_ai2d(folder, masked=False)
        assert first.images == ('images/7.png',)
        found = score(AI2DMetric(), load_ai2d(folder), ['B', 'The egg.'])
        assert found == {'ai2d/accuracy': 50, 'ai2d/unread': 0}

    def test_table(self, tmp_path, write):
        image = base64.b64encode(picture()).decode()
        table = f'index\tquestion\tA\tB\tanswer\timage\n0\tWhat?\tx\ty\tB\t{image}\n'
        write(tmp_path / 'AI2D_TEST_NO_MASK.tsv', table)
        (sample,) = load_ai2d(tmp_path, masked=False)
        assert sample.images == (picture(),)
        assert (sample.options, sample.gold) == (('x', 'y'), 'B')
        with pytest.raises(FileNotFoundError, match='ai2d_test_ids.csv'):
            load_ai2d(tmp_path)


class TestScienceQA:
    @pytest.mark.parametrize(
        ('text', 'letter'),
        [
            ('B', 'B'),
            (' B ', 'B'),
            ('B. a dog', 'B'),
            ('B.', None),
            ('B.cat', None),
            ('B.\ncat', None),
            ('Because of it. The answer is C.', 'C'),
            ('The answer is B, because it is', 'B'),
            ('The answer is B because', 'B'),
            ('The answer is B\nbecause', None),
            ('The answer is BC.', 'B'),
            ('The answer is B. No: The answer is C.', None),
            ('The answer is C', None),
            ('B a dog', None),
            ('(B)', None),
            ('b', None),
            ('AB', None),
            ('', None),
        ],
    )
    def test_answer_rule(self, text, letter):
        assert chosen_letter(text) == letter

    def test_with_and_without_image(self):
        samples = [
            VLMSample('1', '?', 'A', ('1.png',), category='natural science'),
            VLMSample('2', '?', 'A', category='social science'),
        ]
        assert score(ScienceQAMetric(), samples, ['A', 'B']) == {
            'science_qa/accuracy': 50,
            'science_qa/unread': 0,
            'science_qa/image': 100,
            'science_qa/natural science': 100,
            'science_qa/social science': 0,
        }

    def test_official_files(self, tmp_path, write):
        problem = dict(
            question='Which?', choices=['x', 'y'], answer=1, hint='', subject='sea'
        )
        problems = {
            '3': problem | dict(image='image.png', hint='Look.'),
            '4': problem | dict(image=None),
            '5': problem | dict(image=None),
        }
        write(tmp_path / 'problems.json', problems)
        write(tmp_path / 'pid_splits.json', {'train': ['5'], 'test': ['3', '4']})
        (sample,) = load_science_qa(tmp_path)
        assert sample.prompt.startswith('Context: Look.\nWhich?\nA. x\nB. y\nAnswer')
        assert (sample.gold, sample.images) == ('B', ('3/image.png',))
        assert len(load_science_qa(tmp_path, 'all')) == 2
