"""Generated benchmarks: a solver that reads the prompt is right, a constant guesses."""

import csv
import json
import math
import re

import pytest
import torch
from byte_tokenizer import write_tokenizer
from language_models import make_teacher
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutput

from mmtransmamba.apis import lm_comparison
from mmtransmamba.apis.lm_benchmarks import evaluate_lm
from mmtransmamba.evaluation.language import (
    GENERATED,
    Question,
    evaluate_letters,
    evaluate_task,
    generate_questions,
    lettered,
    same_words,
    write_answers,
)
from mmtransmamba.evaluation.language.generated.task import QUESTIONS
from mmtransmamba.evaluation.language.scores import Score, TaskResult
from mmtransmamba.evaluation.language.writing import says_letter
from mmtransmamba.utils.choices import LM_GENERATED, LM_GROUPS


def solve(text):
    """The answer to any generated prompt, from nothing but its text."""
    if text.startswith('List:'):
        return re.match(r'List: (.*?)\.\n', text)[1]
    if text.startswith('There is a pass key'):
        return re.search(r'The pass key is (\d+)\.', text)[1]
    if text.startswith('Numbers of cities'):
        city = re.search(r'What is the number of (\w+)\?', text)[1]
        return re.search(rf'The number of {city} is (\d+)\.', text)[1]
    if text.startswith('Bits:'):
        bits = text.splitlines()[-1].split('.')[0]
        return 'odd' if bits.count('1') % 2 else 'even'
    if text.startswith('The ball'):
        last = text.splitlines()[-1]
        place = re.search(r'under cup (\w)\.', last)[1]
        for one, two in re.findall(r'Swap (\w) and (\w)\.', last):
            place = {one: two, two: one}.get(place, place)
        return place
    *pairs, asked = text.splitlines()
    memory = dict(line.split(': ') for line in pairs)
    return memory[asked.removesuffix(':')]


SMALL = dict(copy=(1, 3), mqar=(2, 6), needle=(20,), parity=(3, 6), passkey=(20, 40))


@pytest.fixture(scope='module')
def letters(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp('tokenizer'))


class Scripted(LlamaForCausalLM):
    """A model that continues its prompts with what a function of the text says.

    Args:
        tokenizer: Its tokenizer.
        prompts: Texts that it can be asked to continue.
        say: Function from a prompt to its continuation.
    """

    def __init__(self, tokenizer, prompts, say):
        super().__init__(
            LlamaConfig(
                vocab_size=300,
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                max_position_embeddings=8192,
            )
        )
        self.generation_config.use_cache = False
        self.generation_config.eos_token_id = 1
        self.tokenizer = tokenizer
        self.answers = {prompt: prompt + say(prompt) for prompt in prompts}

    def forward(self, input_ids, attention_mask=None, **_):
        logits = torch.zeros(*input_ids.shape, 300)
        for row, ids in enumerate(input_ids):
            begin = (
                0
                if attention_mask is None
                else int((~attention_mask[row].bool()).sum())
            )
            text = self.tokenizer.decode(ids[begin:], skip_special_tokens=True)
            prompt = max((p for p in self.answers if text.startswith(p)), key=len)
            wanted = [*self.tokenizer.encode(self.answers[prompt]), 1]
            for t in range(begin, len(ids)):
                if t - begin + 1 < len(wanted):
                    logits[row, t, wanted[t - begin + 1]] = 20
        return CausalLMOutput(logits=logits)


def prompts_of(questions):
    return {q.contexts[0] for q in questions}


def test_offered_names_are_those_of_the_generators():
    from mmtransmamba.evaluation.language import GROUPS

    assert LM_GENERATED == tuple(GENERATED)
    assert LM_GROUPS == tuple(GROUPS)


@pytest.mark.parametrize('name', GENERATED)
def test_a_model_that_solves_the_prompt_is_always_right(name, letters):
    task = GENERATED[name]
    questions = generate_questions(name, task, 4, SMALL.get(name, (2, 3)))
    solver = Scripted(letters, prompts_of(questions), lambda text: ' ' + solve(text))
    result = evaluate_task(solver.eval(), letters, task, questions)
    assert {m: s.value for m, s in result.scores.items()} == dict(
        acc=1, generated=1, gap=0
    )
    assert all(result.right)
    assert set(result.by_length) == set(SMALL.get(name, (2, 3)))


@pytest.mark.parametrize('name', GENERATED)
def test_a_model_that_says_nothing_guesses(name, letters):
    """With equal likelihoods the first answer counts, which is right by chance."""
    task = GENERATED[name]
    questions = generate_questions(name, task, 200, SMALL.get(name, (2,))[:1])
    share = sum(q.gold == 0 for q in questions) / len(questions)
    spread = 4 * math.sqrt(task.chance * (1 - task.chance) / len(questions))
    assert abs(share - task.chance) < spread
    silent = Scripted(letters, prompts_of(questions[:8]), lambda text: '')
    result = evaluate_task(silent.eval(), letters, task, questions[:8])
    assert result.scores['generated'].value == 0
    assert result.scores['gap'].value == result.scores['acc'].value


@pytest.mark.parametrize('name', GENERATED)
def test_answers_differ_and_only_one_is_right(name):
    questions = generate_questions(name, GENERATED[name], 20, SMALL.get(name, (5,)))
    for question in questions:
        assert len(set(question.options)) == len(question.options)
        assert question.options[question.gold] == solve(question.contexts[0])
    assert len({q.contexts for q in questions}) > len(questions) / 2


@pytest.mark.parametrize('name', GENERATED)
def test_questions_depend_on_the_seed_and_grow_with_the_length(name):
    task = GENERATED[name]
    questions = generate_questions(name, task)
    assert len(questions) == QUESTIONS * len(task.lengths)
    assert questions == generate_questions(name, task, seed=0)
    assert questions != generate_questions(name, task, seed=1)
    few = generate_questions(name, task, 3, task.lengths[-1:])
    assert few == questions[-QUESTIONS:][:3]
    sizes = [len(q.contexts[0]) for q in questions[::QUESTIONS]]
    assert sizes == sorted(sizes) and sizes[-1] > 2 * sizes[0]


def test_a_length_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match='length 1000 of mqar must be .* and 64 pairs'):
        generate_questions('mqar', GENERATED['mqar'], lengths=[1000])


def test_no_question_is_asked_twice():
    once = generate_questions('parity', GENERATED['parity'], 4, [2, 3])
    again = generate_questions('parity', GENERATED['parity'], 4, [2, 3, 2])
    assert again == once and len(once) == 8


def test_likelihood_and_writing_may_disagree(letters):
    """The right answer is the likeliest of those given, but another is written."""
    question = Question.choose('Q:', ['dog', 'cat'], 0)
    model = Scripted(letters, ['Q:'], lambda text: ' bird')
    weak = model.forward

    def forward(input_ids, **rest):
        output = weak(input_ids, **rest)
        place = letters.encode('Q: ')
        if input_ids.shape[1] >= len(place):
            output.logits[:, len(place) - 1, letters.encode('d')[-1]] = 19
        return output

    model.forward = forward
    task = GENERATED['mqar']
    scores = evaluate_task(model.eval(), letters, task, [question] * 3).scores
    assert {m: s.value for m, s in scores.items()} == dict(acc=1, generated=0, gap=1)


@pytest.mark.parametrize(
    'written, answer, right',
    [
        (' river.', 'river', True),
        ('River\nother', ' river', True),
        (' rivers', 'river', False),
        (' a river', 'river', False),
        (' 123456', '12345', False),
        (' one two three', 'one two', True),
        (' one', 'one two', False),
        ('', 'one', False),
        (' x', '.', False),
    ],
)
def test_written_answers_are_read_word_by_word(written, answer, right):
    assert same_words(written, answer) is right


@pytest.mark.parametrize(
    'written, right',
    [
        *((' A', True), (' A.', True), (' A. a cat', True), ('(A) cat', True)),
        *((' A\na', True), ('**A**', True), (' A, because', True)),
        *((' a dog', False), (' A dog', False), (' a', False), (' AB', False)),
        *((' B', False), (' AB c', False), ('', False), (' I say A', False)),
    ],
)
def test_a_letter_is_no_article_and_no_part_of_a_word(written, right):
    assert says_letter(written, ' A') is right


def make_gpt2(n_positions=48):
    torch.manual_seed(0)
    sizes = dict(vocab_size=300, n_embd=16, n_layer=1, n_head=2, eos_token_id=1)
    return GPT2LMHeadModel(GPT2Config(n_positions=n_positions, **sizes))


@pytest.mark.parametrize(
    'prompts',
    [
        [([5] * 60, 2), ([6] * 60, 12)],
        [([5] * 40, 2), ([6] * 10, 20)],
        [([5] * 90, 40), ([6] * 40, 2), ([7] * 40, 2), ([8] * 3, 9)],
    ],
)
def test_answers_of_several_lengths_keep_to_the_learned_positions(letters, prompts):
    model = make_gpt2().eval()
    together = write_answers(model, letters, prompts)
    alone = [write_answers(model, letters, [prompt])[0] for prompt in prompts]
    assert together == alone


def test_a_model_in_training_is_scored_without_dropout_and_stays_as_it_was(letters):
    model = make_gpt2(512)
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]

    def score():
        found = evaluate_lm([(model, letters)], ['mqar'], limit=8, lengths=[2])
        return found.results['model 0']['mqar'].scores

    first = score()
    assert [module.training for module in model.modules()] == modes
    model.eval()
    assert score() == first


@pytest.mark.parametrize('batch_tokens', [1, 40, 4096])
def test_prompts_of_several_lengths_are_continued_in_their_order(letters, batch_tokens):
    said = {'a': ' one', 'longer prompt': ' two', 'mid': ''}
    model = Scripted(letters, list(said), said.__getitem__).eval()
    prompts = [(letters.encode(text), 4) for text in (*said, 'a')]
    texts = write_answers(model, letters, prompts, batch_tokens)
    assert texts == [' one', ' two', '', ' one']


@pytest.mark.parametrize(
    'settings',
    [
        *(dict(no_repeat_ngram_size=1), dict(suppress_tokens=list(range(9)))),
        *(dict(repetition_penalty=5.0), dict(encoder_repetition_penalty=5.0)),
        *(
            dict(return_dict_in_generate=True),
            dict(num_beams=3, num_return_sequences=2),
        ),
        dict(do_sample=True, temperature=9.0),
    ],
)
def test_answers_are_the_likeliest_whatever_the_folder_says(letters, settings):
    model = make_teacher(vocab_size=len(letters))
    prompts = [(letters.encode(text), 6) for text in ('abc', 'a longer one')]
    expected = write_answers(model, letters, prompts)
    own = model.generation_config
    for name, value in settings.items():
        setattr(own, name, value)
    assert write_answers(model, letters, prompts) == expected
    assert model.generation_config is own


def test_every_option_is_once_under_every_letter():
    question = Question.choose('Question: why?\nAnswer:', ['x', 'y', 'z'], 1)
    rotated = lettered(question)
    assert [q.gold for q in rotated] == [1, 0, 2]
    assert rotated[1].contexts[0] == 'Question: why?\nA. y\nB. z\nC. x\nAnswer:'
    assert {q.continuations for q in rotated} == {(' A', ' B', ' C')}
    with pytest.raises(ValueError, match='1 options'):
        lettered(Question.choose('x', ['y'], 0))


def test_a_model_that_likes_a_letter_is_found_out(letters):
    questions = [
        Question.choose(f'Question: {i}?\nAnswer:', list('wxyz'), i % 4)
        for i in range(3)
    ]
    rotated = [q for question in questions for q in lettered(question)]
    stuck = Scripted(letters, prompts_of(rotated), lambda text: ' B').eval()
    scores = {
        k: s.value for k, s in evaluate_letters(stuck, letters, questions).items()
    }
    assert scores == dict(
        letters=0.25,
        letters_generated=0.25,
        letters_gap=0,
        letters_all=0,
        letters_top=1,
    )
    article = Scripted(letters, prompts_of(rotated), lambda text: ' A dog').eval()
    scores = evaluate_letters(article, letters, questions)
    assert scores['letters_generated'].value == 0
    gold = {q.contexts[0]: f' {"ABCD"[q.gold]}' for q in rotated}
    knows = Scripted(letters, gold, gold.__getitem__).eval()
    scores = evaluate_letters(knows, letters, questions)
    assert scores['letters'].value == scores['letters_all'].value == 1
    assert scores['letters_top'].value == 0.25


def test_a_comparison_is_a_table_a_csv_and_plots(letters, tmp_path):
    names, lengths = ['passkey', 'state_tracking'], [3, 6]
    questions = [
        q
        for name in ('passkey', 'parity', 'permutation')
        for q in generate_questions(name, GENERATED[name], 1, lengths, seed=5)
    ]
    teacher = Scripted(letters, prompts_of(questions), lambda text: ' ' + solve(text))
    silent = Scripted(letters, prompts_of(questions), lambda text: '')
    comparison = evaluate_lm(
        [(teacher.eval(), letters), (silent.eval(), letters)],
        names,
        limit=1,
        lengths=lengths,
        seed=5,
    )
    assert list(comparison.results['model 0']) == ['passkey', 'parity', 'permutation']
    table = comparison.table()
    assert '| passkey, 6 words | generated |  | 100.00 ± 0.00 | 0.00 ± 0.00 |' in table
    assert '| parity, 3 bits | gap |' in table
    scores = [
        result.scores['acc'].value for result in comparison.results['model 1'].values()
    ]
    lead = [
        (own - GENERATED[name].chance) / (1 - GENERATED[name].chance)
        for own, name in zip(scores, comparison.results['model 1'], strict=True)
    ]
    assert comparison.recovery('model 1') == pytest.approx(sum(lead) / 3)
    assert comparison.recovery('model 0') == 1
    assert comparison.tolerance('model 0') == 0
    losses = sorted(1 - own for own in scores)
    assert comparison.tolerance('model 1') == pytest.approx(losses[1])
    curve = comparison.win_and_tie_curve('model 1')
    assert curve[-1] == (pytest.approx(losses[-1]), 1)
    comparison.save(tmp_path / 'scores.json')
    saved = json.loads((tmp_path / 'scores.json').read_text())
    assert saved['model 0']['tasks']['parity']['by_length']['6']['acc']['value'] == 1
    comparison.save_csv(tmp_path / 'scores.csv')
    with (tmp_path / 'scores.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 3 * 3  # models, benchmarks, lengths and all, metrics
    assert rows[0] == dict(
        model='model 0',
        benchmark='passkey',
        length='',
        metric='acc',
        value='1.000000',
        error='0.000000',
    )
    drawn = comparison.plot(tmp_path / 'plots')
    assert [path.name for path in drawn] == ['by_length.png', 'tolerance.png']
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in drawn)


def test_models_in_folders_of_one_name_stay_apart(tmp_path, monkeypatch):
    paths = ['hub/lm', 'runs/a/student', 'runs/b/student', 'old/runs/b/student']
    names = lm_comparison.distinct_names(paths)
    assert list(names.values()) == ['lm', 'a/student', 'runs/b/student', paths[3]]
    assert lm_comparison.distinct_names(['a', 'x/a']) == {'a': 'a', 'x/a': 'x/a'}

    def result(value):
        scores = dict(acc=Score(value, 0.0), generated=Score(value, 0.0))
        return TaskResult(scores, 2, (True, False), {4: scores, 8: scores})

    drawn = []
    monkeypatch.setattr(lm_comparison, 'plot_by_length', lambda p, _: drawn.append(p))
    monkeypatch.setattr(lm_comparison, 'plot_tolerance', lambda c, _: drawn.append(c))
    values = dict(zip(paths, (0.9, 0.8, 0.2, 0.1), strict=True))
    results = {path: {'passkey': result(value)} for path, value in values.items()}
    lm_comparison.LanguageComparison(results).plot(tmp_path)
    panels, curves = drawn
    assert len(panels['passkey'][2]) == 2 * 4
    assert list(curves) == list(names.values())[1:]


@pytest.mark.parametrize(
    'tasks, options, message',
    [
        (['piqa'], {}, 'piqa needs data'),
        (['piqa'], dict(data='x', lengths=[3]), 'lengths are for generated benchmarks'),
        (['mqar'], dict(letters=True), 'letters need a benchmark with several options'),
        (['recall'], {}, 'benchmark recall is unknown; accepted: .*state_tracking'),
        (['mqar', 'passkey'], dict(lengths=[65]), 'length 65 of mqar'),
        (['mqar'], dict(limit=0), 'limit=0 must be 1 at least'),
        (['piqa'], dict(data='x', limit=-1), 'limit=-1 must be 1 at least'),
    ],
)
def test_options_that_fit_no_benchmark_are_refused(tasks, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_lm([(None, None)], tasks, **options)
