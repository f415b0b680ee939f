"""Token sequences from files, from text, and from a generator."""

import json
import pickle

import markov_tokens  # noqa: F401 (registers its data set)
import numpy as np
import pytest
import torch
from byte_tokenizer import BOS, write_tokenizer
from mmengine.runner import Runner

from mmtransmamba.datasets import PackedText, TokenSamples, packed_text
from mmtransmamba.datasets.token_collate import collate_tokens, token_sample


@pytest.fixture
def tokenizer(tmp_path):
    return write_tokenizer(tmp_path / 'tokenizer')


def check(sample, length):
    assert set(sample) == {'input_ids', 'attention_mask', 'labels'}
    for value in sample.values():
        assert value.dtype == torch.int64
        assert value.shape == (length,)
    assert sample['attention_mask'].all()


@pytest.mark.parametrize('shape', [(0, 16), (4, 1), (4, 0), (0, 0)])
def test_a_file_of_which_nothing_can_be_learned_is_refused(tmp_path, shape):
    """A sampler without end would look for a row of an empty one for ever."""
    file = tmp_path / 'empty.npz'
    np.savez(file, tokens=np.zeros(shape, np.int64))
    with pytest.raises(ValueError, match=rf'empty.npz is \[{shape[0]}, {shape[1]}\]'):
        TokenSamples(str(file))


def test_single_tokens_are_no_samples(npz, tokenizer, tmp_path):
    with pytest.raises(ValueError, match='length=1 is kept'):
        TokenSamples(str(npz[0]), length=1)
    (tmp_path / 'text.txt').write_text('a b c')
    with pytest.raises(ValueError, match='block_size=1 must be 2 at least'):
        PackedText(str(tmp_path / 'text.txt'), tokenizer, block_size=1)


# ---------------------------------------------------------------------- TokenSamples


@pytest.fixture
def npz(tmp_path):
    tokens = np.random.default_rng(0).integers(0, 512, (6, 10)).astype(np.uint16)
    np.savez(tmp_path / 'samples.npz', tokens=tokens)
    return tmp_path / 'samples.npz', tokens


def test_rows_of_the_file(npz):
    path, tokens = npz
    dataset = TokenSamples(str(path))
    assert len(dataset) == 6
    check(dataset[3], 10)
    assert dataset[3]['input_ids'].tolist() == tokens[3].tolist()
    assert dataset[3]['labels'].tolist() == tokens[3].tolist()


def test_a_part_of_the_file(npz):
    path, tokens = npz
    dataset = TokenSamples(str(path), num_samples=2, length=4)
    assert len(dataset) == 2
    assert dataset[1]['input_ids'].tolist() == tokens[1, :4].tolist()


@pytest.mark.parametrize(
    'arrays, kwargs, message',
    [
        (dict(ids=np.zeros((2, 2), int)), {}, r"has \['ids'\], but no array"),
        (dict(tokens=np.zeros(3, int)), {}, r'is int64 \[3\]; it must be an integer'),
        (dict(tokens=np.zeros((2, 2))), {}, 'is float64'),
        (dict(tokens=np.zeros((2, 3), int)), dict(num_samples=3), 'num_samples=3'),
        (dict(tokens=np.zeros((2, 3), int)), dict(length=4), 'length=4'),
    ],
)
def test_unusable_file(arrays, kwargs, message, tmp_path):
    np.savez(tmp_path / 'x.npz', **arrays)
    with pytest.raises(ValueError, match=message):
        TokenSamples(str(tmp_path / 'x.npz'), **kwargs)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='expected an .npz with an array'):
        TokenSamples(str(tmp_path / 'x.npz'))


def test_shared_samples(shared_dir):
    dataset = TokenSamples(str(shared_dir / 'data/stories260k/samples_val.npz'))
    assert len(dataset) == 400
    check(dataset[0], 256)
    assert all(dataset[i]['input_ids'][0] == 1 for i in range(400))


# ------------------------------------------------------------------------ PackedText


def decode(dataset, tokenizer):
    return tokenizer.decode(torch.cat([block['input_ids'] for block in dataset]))


def test_documents_are_packed(tmp_path, tokenizer):
    texts = ['Once upon a time\nthere was', 'a dog.', 'The end, said the dog. Hooray!']
    rows = ''.join(json.dumps(dict(text=text)) + '\n' for text in texts[:2])
    (tmp_path / 'a.jsonl').write_text(rows)
    (tmp_path / 'b.txt').write_text(texts[2])
    dataset = PackedText(
        [str(tmp_path / '*.jsonl'), str(tmp_path / 'b.txt')],
        str(tmp_path / 'tokenizer'),
        block_size=8,
    )
    whole = ''.join(f'<s>{text}</s>' for text in texts)
    length = sum(len(text) + 2 for text in texts)
    assert len(dataset) == length // 8
    check(dataset[0], 8)
    read = decode(dataset, tokenizer)
    assert whole.startswith(read)
    assert length - 8 < sum(len(block['input_ids']) for block in dataset) <= length
    # BOS says nothing about the document before it; all else is learned.
    for block in dataset:
        ids, labels = block['input_ids'], block['labels']
        assert torch.equal(labels, torch.where(ids == BOS, -100, ids))


@pytest.mark.parametrize('name', ['a.ndjson', 'a.JSONL', 'a[1].jsonl'])
def test_json_lines_of_any_name(tmp_path, tokenizer, name):
    rows = [dict(body='Once upon a time'), dict(body='there was a dog.')]
    (tmp_path / name).write_text('\n'.join(map(json.dumps, rows)))
    dataset = PackedText(
        *(str(tmp_path / name), str(tmp_path / 'tokenizer'), 8), text_key='body'
    )
    assert decode(dataset, tokenizer).startswith('<s>Once upon a time</s><s>there')


@pytest.mark.parametrize('name', ['a.json', 'a.JSON', 'a.parquet', 'a.csv', 'a.txt.gz'])
def test_what_is_no_text_is_refused(tmp_path, tokenizer, name):
    (tmp_path / name).write_text('{"text": "a b c"}')
    message = f'{name} is neither a text nor JSON Lines; accepted are texts, and one'
    with pytest.raises(ValueError, match=message):
        PackedText(str(tmp_path / name), str(tmp_path / 'tokenizer'), 8)


@pytest.mark.parametrize('keys', [dict(text_key='body'), dict(prompt_key='question')])
def test_keys_of_a_text_are_refused(tmp_path, tokenizer, keys):
    (tmp_path / 'a.txt').write_text('Once upon a time')
    (tmp_path / 'b.jsonl').write_text('{"body": "there was", "text": "a dog"}')
    (name,) = keys
    with pytest.raises(ValueError, match=f'{name}=.* goes with JSON Lines; .*a.txt is'):
        PackedText(str(tmp_path / 'a.txt'), str(tmp_path / 'tokenizer'), 8, **keys)
    both = [str(tmp_path / name) for name in ('a.txt', 'b.jsonl')]
    assert PackedText(both, str(tmp_path / 'tokenizer'), 8, **keys)


def test_prompts_are_not_learned(tmp_path, tokenizer):
    rows = [dict(question='2+2?', answer='4'), dict(answer='no prompt')]
    (tmp_path / 'qa.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n\n')
    dataset = PackedText(
        str(tmp_path / 'qa.jsonl'),
        str(tmp_path / 'tokenizer'),
        block_size=18,
        text_key='answer',
        prompt_key='question',
    )
    (block,) = dataset
    learned = block['labels'] >= 0
    assert tokenizer.decode(block['input_ids'][learned]) == '4</s>no prompt</s>'
    assert tokenizer.decode(block['input_ids'][~learned]) == '<s>2+2?<s>'


def test_long_text_in_pieces(tmp_path, tokenizer):
    text = ''.join(f'line {i} of many\n' for i in range(9000))
    (tmp_path / 'long.txt').write_text(text)
    dataset = PackedText(
        str(tmp_path / 'long.txt'), str(tmp_path / 'tokenizer'), block_size=1000
    )
    assert ('<s>' + text + '</s>').startswith(decode(dataset, tokenizer))
    assert len(dataset) == (len(text) + 2) // 1000


def test_tokens_are_kept_until_something_changes(tmp_path, tokenizer, monkeypatch):
    source = tmp_path / 'a.txt'
    source.write_text('some text of some length')
    args = (str(source), str(tmp_path / 'tokenizer'), 4)
    first = PackedText(*args)
    with monkeypatch.context() as patched:
        patched.setattr(PackedText, '_write', None)
        again = PackedText(*args)
    assert again.path == first.path
    source.write_text('another text')
    assert 'another' in decode(PackedText(*args), tokenizer)
    elsewhere = PackedText(*args, cache_dir=str(tmp_path / 'cache'))
    assert elsewhere.path.parent == tmp_path / 'cache'
    assert [p.suffix for p in elsewhere.path.parent.iterdir()] == ['.bin']


@pytest.mark.parametrize('name', ['added_tokens.json', 'spiece.model', 'config.json'])
def test_every_file_of_a_tokenizer_counts(tmp_path, tokenizer, name):
    (tmp_path / 'a.txt').write_text('some text of some length')
    args = (str(tmp_path / 'a.txt'), str(tmp_path / 'tokenizer'), 4)
    paths = [PackedText(*args).path]
    for content in ('{}', '{"model_type": "llama"}'):
        (tmp_path / 'tokenizer' / name).write_text(content)
        with pytest.MonkeyPatch.context() as patch:
            # Such a file need not be one that can be read.
            written = tokenizer
            patch.setattr(packed_text, 'load_tokenizer', lambda _, t=written: t)
            paths.append(PackedText(*args).path)
    assert len(set(paths)) == 3


def test_other_processes_read_the_file(tmp_path, tokenizer):
    (tmp_path / 'a.txt').write_text('x' * 4000)
    dataset = PackedText(str(tmp_path / 'a.txt'), str(tmp_path / 'tokenizer'), 1000)
    expected = dataset[0]
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 2000
    assert torch.equal(pickle.loads(pickled)[0]['input_ids'], expected['input_ids'])


@pytest.mark.parametrize(
    'content, kwargs, message',
    [
        ('{"text": "fine"}\nnot json\n', {}, 'bad.jsonl, line 2 is not a JSON object'),
        ('{"body": "x"}\n', {}, 'line 1 is not a JSON object with text under "text"'),
        (
            '{"text": "a"}\n{"text": null}\n',
            {},
            'line 2 has None under "text"',
        ),
        ('{"text": ["a", "b"]}\n', {}, r"line 1 has \['a', 'b'\] under"),
        ('{"text": 5}\n', {}, 'line 1 has 5 under "text"'),
        (
            '{"text": "a", "q": {"b": 1}}\n',
            dict(prompt_key='q'),
            'line 1 has {.*} under "q", not text',
        ),
        ('{"text": "half \\ud83d"}\n', {}, 'line 1 .* half of a surrogate pair'),
        ('{"text": "short"}\n', {}, '7 tokens, less than one block of block_size=64'),
    ],
)
def test_bad_text(content, kwargs, message, tmp_path, tokenizer):
    (tmp_path / 'bad.jsonl').write_text(content)
    with pytest.raises(ValueError, match=message):
        PackedText(
            str(tmp_path / 'bad.jsonl'), str(tmp_path / 'tokenizer'), 64, **kwargs
        )
    # A failed run leaves no half-written tokens behind.
    assert not list((tmp_path / '.packed').glob('*.part'))


def test_missing_files(tmp_path, tokenizer):
    (tmp_path / 'a.txt').write_text('text')
    with pytest.raises(FileNotFoundError, match='no file fits'):
        PackedText(str(tmp_path / '*.jsonl'), str(tmp_path / 'tokenizer'))
    with pytest.raises(FileNotFoundError, match='with a tokenizer'):
        PackedText(str(tmp_path / 'a.txt'), str(tmp_path / 'nowhere'))
    write_tokenizer(tmp_path / 'bare', bos=None, eos=None)
    with pytest.raises(ValueError, match='neither a BOS nor an EOS'):
        PackedText(str(tmp_path / 'a.txt'), str(tmp_path / 'bare'))


# --------------------------------------------------------------------------- batches


def test_shorter_samples_are_padded():
    long = token_sample(torch.tensor([5, 6, 7]), torch.tensor([False, True, True]))
    batch = collate_tokens([long, token_sample(torch.tensor([8]))], pad_token=9)
    assert batch['input_ids'].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch['attention_mask'].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch['labels'].tolist() == [[-100, 6, 7], [8, -100, -100]]


@pytest.mark.parametrize('collate', ['mmtransmamba.collate_tokens', 'default_collate'])
def test_dataloader_of_a_runner(collate):
    loader = Runner.build_dataloader(
        dict(
            batch_size=3,
            dataset=dict(type='mmtransmamba.MarkovTokens', num_samples=5, length=7),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type=collate),
        )
    )
    first, second = loader
    assert first['input_ids'].shape == (3, 7)
    assert second['labels'].shape == (2, 7)


def test_one_token_between_documents_is_written_once(tmp_path, tokenizer):
    tokenizer.bos_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / 'tokenizer')
    rows = ''.join(json.dumps(dict(text=text)) + '\n' for text in ('ab', 'cd', 'ef'))
    (tmp_path / 'a.jsonl').write_text(rows)
    (block,) = PackedText(
        str(tmp_path / 'a.jsonl'), str(tmp_path / 'tokenizer'), block_size=9
    )
    assert tokenizer.decode(block['input_ids']) == 'ab</s>cd</s>ef</s>'
    assert (block['labels'] >= 0).all()
