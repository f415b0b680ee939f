"""A tokenizer whose tokens are bytes."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

BOS, EOS = 0, 1
OFFSET = 2


def write_tokenizer(folder, bos='<s>', eos='</s>'):
    """A tokenizer whose tokens are the bytes, from id 2 on."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {'<s>': BOS, '</s>': EOS} | {c: i + OFFSET for i, c in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos
    )
    fast.save_pretrained(folder)
    return fast
