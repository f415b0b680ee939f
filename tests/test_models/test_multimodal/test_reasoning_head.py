"""Generation that ends with the conclusion, and the answers in it."""

import pytest
import torch
from PIL import Image
from tiny_vlms import tiny_llava, tiny_processor, tiny_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AddedToken, LogitsProcessor, PreTrainedTokenizerFast

from mmtransmamba.models.multimodal.heads import ReasoningHead
from mmtransmamba.models.multimodal.heads.stopping import stop_criterion
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.reasoning_text import STOP, TAGS, join_sections

LONG = join_sections('plan', 'two cats', 'one, then another', '2')
SHORT = join_sections('p', 'c', 'r', 'B')


def bpe_tokenizer():
    """Byte-level BPE with Llama 3's rule that line breaks stick to punctuation."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r' ?[^\s\p{L}\p{N}]+[\r\n]*|\p{L}+|\s+|.')
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, 'isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=['<pad>', '<s>', '</s>'],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([LONG, SHORT, 'so.\n\n<CONCLUSION>\n'] * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token='<pad>', bos_token='<s>', eos_token='</s>'
    )


def tagged_tokenizer():
    """Every tag is one token."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return tokenizer


class Scripted(LogitsProcessor):
    """Lets each row of a batch write its text, and then go on with dots."""

    def __init__(self, tokenizer, texts, prompt_length):
        dot = tokenizer('.', add_special_tokens=False).input_ids
        self.scripts = [
            tokenizer(text, add_special_tokens=False).input_ids + 400 * dot
            for text in texts
        ]
        self.prompt_length = prompt_length

    def __call__(self, input_ids, scores):
        step = input_ids.shape[1] - self.prompt_length
        forced = torch.full_like(scores, -torch.inf)
        for row, script in enumerate(self.scripts):
            forced[row, script[step]] = 0
        return forced


def write(tokenizer, texts, prompts=None, **settings):
    """The head's result for a batch whose rows generate these texts."""
    prompts = prompts or ['Why?'] * len(texts)
    batch = tokenizer(
        prompts, padding=True, padding_side='left', return_tensors='pt'
    ).data
    batch.pop('token_type_ids', None)
    model = tiny_llava(vocab_size=len(tokenizer), num_hidden_layers=1)
    script = Scripted(tokenizer, texts, batch['input_ids'].shape[1])
    calls = []

    def count(ids, scores, **_):
        calls.append(ids.shape[1])
        return torch.zeros(len(ids), dtype=torch.bool)

    head = ReasoningHead(
        logits_processor=[script], stopping_criteria=[count], **settings
    )
    return head.generate(model, tokenizer, batch), len(calls)


@pytest.mark.parametrize('tokenizer', [tiny_tokenizer, bpe_tokenizer, tagged_tokenizer])
def test_every_row_ends_with_its_own_conclusion(tokenizer):
    tokenizer = tokenizer()
    found, steps = write(
        tokenizer,
        [f'{LONG}\n\nAnd then', f'{SHORT}\n\nAnd then'],
        ['A prompt that is long', 'Why?'],
    )
    assert found == [LONG, SHORT]
    # Not one token after the end of the longer one.
    length = len(tokenizer(LONG, add_special_tokens=False).input_ids)
    assert length - 1 <= steps <= length


def test_a_token_may_have_more_than_the_tag():
    tokenizer = bpe_tokenizer()
    tokens = tokenizer.tokenize(f'{SHORT}\n\nAnd')
    assert any('>' in token and 'Ċ' in token for token in tokens[-5:])


def test_a_conclusion_in_the_prompt_stops_nothing():
    found, _ = write(tiny_tokenizer(), [SHORT], [f'USER: what is {LONG}'])
    assert found == [SHORT]


def test_what_stops_is_built_once_for_a_vocabulary():
    tokenizer = tiny_tokenizer()
    first = stop_criterion(tokenizer, (STOP,))
    assert stop_criterion(tokenizer, [STOP]) is first
    assert stop_criterion(tokenizer, ('.',)) is not first
    tokenizer.add_tokens([STOP])
    assert stop_criterion(tokenizer, (STOP,)) is not first
    # It would not stop at the new token.
    ids = tokenizer(f'a{STOP}', return_tensors='pt').input_ids
    assert stop_criterion(tokenizer, (STOP,))(ids, None).all()


def test_the_greatest_length():
    found, steps = write(tiny_tokenizer(), [LONG, 'no tag'], max_new_tokens=30)
    assert found == [LONG[:30], 'no tag' + 24 * '.'] and steps == 30
    head = ReasoningHead()
    assert head.generation['max_new_tokens'] == 2048
    assert head.answer_of(LONG) == '2'
    assert head.answer_of(found[0]) == head.answer_of(found[1]) == ''
    assert ReasoningHead(untagged='text').answer_of('Two cats.') == 'Two cats.'


def test_an_end_of_text_ends_it_too():
    found, _ = write(tiny_tokenizer(), ['<SUMMARY> p</s>more', SHORT])
    assert found[1] == SHORT
    assert found[0].startswith('<SUMMARY> p') and 'more' not in found[0]


def test_predictions_of_a_batch():
    processor, model = tiny_processor(), tiny_llava()
    images = [Image.new('RGB', (16, 16), colour) for colour in ('red', 'blue')]
    prompts = ['USER: <image>\nWhich colour is it? ASSISTANT: ', '<image> ? ']
    settings = dict(padding=True, return_tensors='pt')
    head = MODELS.build(dict(type='mmtransmamba.ReasoningHead', max_new_tokens=12))
    alone = [
        head.generate(model, processor, dict(processor(i, text=t, **settings)))[0]
        for t, i in zip(prompts, images, strict=True)
    ]
    processor.tokenizer.padding_side = 'left'
    batch = dict(processor(images, text=prompts, **settings))
    found = head.predict(
        model,
        processor,
        batch | dict(answers=['red', 'blue'], question_ids=['1', '2']),
    )
    assert [row['text'] for row in found] == alone
    assert [row['prediction'] for row in found] == ['', '']
    assert [row['question_id'] for row in found] == ['1', '2']


def test_a_setting_that_is_none():
    with pytest.raises(ValueError, match="untagged='last'"):
        ReasoningHead(untagged='last')
