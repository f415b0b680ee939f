"""Prefill and decode speed, and memory, of a Transformer, its hybrid and pure Mamba.

Every measurement is a process of its own, so that one's memory does not count for
another. The weights are random: speed does not depend on them. On the CPU the models
are small; with --size llama-3.2-1b on a GPU, contexts up to 131072 tokens give the
comparison that mmMamba reports.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

# A clean checkout needs no installation of the package itself.
_ROOT = Path(__file__).absolute().parent.parent.parent
if (_ROOT / 'mmtransmamba' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

import mmtransmamba  # noqa: F401, I001  (first: it bridges the imports that follow)
import torch
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

from mmtransmamba.models.language import cast_parameters
from mmtransmamba.transfer.language import hybrid_config

SIZES = {
    'tiny': dict(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
    'small': dict(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
    ),
    'llama-3.2-1b': dict(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    ),
}
# Share of Mamba layers; the hybrid keeps the first of every four layers as attention.
MODELS = {'teacher': 0.0, 'hybrid': 0.75, 'pure': 1.0}
WARM_UP = 2
PAPER = (
    'mmMamba reports, for its model of 2.7B parameters at 103K tokens: decoding 20.6 '
    'times as fast with 75.8 % less memory (pure), 13.5 times with 60.2 % less (hybrid)'
)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{number} must be at least 1')
    return number


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--size', choices=SIZES, default='tiny')
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument(
        '--contexts', nargs='+', type=positive, default=[512, 1024, 2048, 4096, 8192]
    )
    parser.add_argument('--new-tokens', type=positive, default=32)
    parser.add_argument('--batch-size', type=positive, default=1)
    parser.add_argument('--repeats', type=positive, default=3, help='medians are shown')
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu'
    )
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'))
    parser.add_argument('--json', type=Path, help='also write the figures here')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.dtype is None:
        args.dtype = 'float32' if args.device == 'cpu' else 'bfloat16'
    return args


def build(name: str, args: argparse.Namespace, context: int) -> torch.nn.Module:
    length = context + args.new_tokens + WARM_UP
    config = LlamaConfig(**SIZES[args.size], max_position_embeddings=length)
    ratio = MODELS[name]
    if ratio > 0:
        config = hybrid_config(config, 'interleaved_head', ratio)
    dtype = getattr(torch, args.dtype)
    # Made in its dtype: a float32 model in between would be the peak of the memory.
    with torch.device(args.device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return cast_parameters(model, dtype).eval()


def synchronize(device: str) -> None:
    if device != 'cpu':
        torch.cuda.synchronize()


def peak_memory(device: str) -> int:
    if device != 'cpu':
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def state_bytes(cache: DynamicCache) -> int:
    """What has to be kept between two tokens."""
    total = 0
    for layer in cache.layers:
        kept = [getattr(layer, 'keys', None), getattr(layer, 'values', None)]
        kept += getattr(layer, 'conv_states', {}).values()
        kept += getattr(layer, 'recurrent_states', {}).values()
        total += sum(t.nbytes for t in kept if t is not None)
    return total


@torch.inference_mode()
def measure(name: str, context: int, args: argparse.Namespace) -> dict[str, float]:
    """One model at one context length, in this process."""
    torch.manual_seed(0)
    model = build(name, args, context)
    weights = sum(p.nbytes for p in model.parameters())
    vocabulary = model.config.vocab_size
    ids = torch.randint(vocabulary, (args.batch_size, context), device=args.device)
    prefill, decode = [], []
    for _ in range(args.repeats + 1):
        cache = DynamicCache(config=model.config)
        synchronize(args.device)
        start = time.perf_counter()
        logits = model(ids, past_key_values=cache, logits_to_keep=1).logits
        synchronize(args.device)
        prefill.append(args.batch_size * context / (time.perf_counter() - start))
        token = logits[:, -1:].argmax(-1)
        for step in range(WARM_UP + args.new_tokens):
            if step == WARM_UP:
                synchronize(args.device)
                start = time.perf_counter()
            token = model(token, past_key_values=cache).logits[:, -1:].argmax(-1)
        synchronize(args.device)
        elapsed = time.perf_counter() - start
        decode.append(args.batch_size * args.new_tokens / elapsed)
    # The first round pays for what is made once.
    return dict(
        model=name,
        context=context,
        prefill=statistics.median(prefill[1:]),
        decode=statistics.median(decode[1:]),
        state=state_bytes(cache),
        weights=weights,
        peak=peak_memory(args.device),
    )


def measure_apart(name: str, context: int) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], '--one', f'{name},{context}']
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f'{name} at {context} tokens failed, see above.')
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[dict[str, float]]) -> str:
    lines = [
        f'{"context":>8}  {"model":8}  {"prefill tok/s":>13}  {"decode tok/s":>12}  '
        f'{"ms/token":>8}  {"state MiB":>9}  {"peak MiB":>8}  {"vs teacher":>10}'
    ]
    base = {r['context']: r['decode'] for r in rows if r['model'] == 'teacher'}
    for row in rows:
        ratio = row['decode'] / base[row['context']] if row['context'] in base else None
        lines.append(
            f'{row["context"]:8}  {row["model"]:8}  {row["prefill"]:13,.0f}  '
            f'{row["decode"]:12,.1f}  {1e3 / row["decode"]:8.2f}  '
            f'{row["state"] / 2**20:9.3f}  {row["peak"] / 2**20:8,.0f}  '
            + (f'{ratio:9.2f}x' if ratio else '')
        )
    return '\n'.join(lines)


def main() -> None:
    args = parse_args()
    if args.one:
        name, context = args.one.split(',')
        print(json.dumps(measure(name, int(context), args)))
        return
    rows = []
    for context in args.contexts:
        for name in args.models:
            print(f'{name} at {context} tokens …', file=sys.stderr)
            rows.append(measure_apart(name, context))
    print(
        f'{args.size}, {args.device}, {args.dtype}, batch {args.batch_size}, '
        f'{args.new_tokens} tokens decoded, medians of {args.repeats}, '
        f'{torch.get_num_threads()} threads'
    )
    print(table(rows))
    print(PAPER)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + '\n')


if __name__ == '__main__':
    main()
