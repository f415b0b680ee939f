"""Implementation of ``decode.py``: models take turns, each in its own process."""

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    LlamaConfig,
    StaticCache,
)

from mmtransmamba.apis.vlm_loading import choose_device
from mmtransmamba.models.language import cast_parameters
from mmtransmamba.models.language.cache_names import as_argument
from mmtransmamba.transfer.convert import Conversion, hybrid_config

SCRIPT = Path(__file__).with_name('decode.py')
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
STEPS = ('eager', 'compiled')
WARM_UP = 2
MARKS = '<!-- begin figures -->', '<!-- end figures -->'
PAPER = (
    'mmMamba reports, for its model of 2.7B parameters at 103K tokens: decoding 20.6 '
    'times as fast with 75.8 % less memory (pure), 13.5 times with 60.2 % less (hybrid)'
)


def build(name: str, args: argparse.Namespace, context: int) -> torch.nn.Module:
    length = context + args.new_tokens + WARM_UP
    config = LlamaConfig(**SIZES[args.size], max_position_embeddings=length)
    ratio = MODELS[name]
    if ratio > 0:
        config = hybrid_config(config, Conversion('interleaved_head', ratio))
    dtype = getattr(torch, args.dtype)
    # Created in its dtype: an intermediate float32 model would be the peak of the
    # memory.
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


def state_bytes(cache: Cache) -> int:
    """Bytes that must be kept between two tokens."""
    total = 0
    for layer in cache.layers:
        kept = [getattr(layer, 'keys', None), getattr(layer, 'values', None)]
        kept += getattr(layer, 'conv_states', {}).values()
        kept += getattr(layer, 'recurrent_states', {}).values()
        total += sum(t.nbytes for t in kept if t is not None)
    return total


class Runner:
    """One model at one context length.

    Args:
        name: One of :data:`MODELS`.
        step: One of :data:`STEPS`, the way in which tokens are decoded.
        context: Number of tokens before the first decoded one.
        args: The command line's arguments.
    """

    def __init__(
        self, name: str, step: str, context: int, args: argparse.Namespace
    ) -> None:
        torch.manual_seed(0)
        self.name, self.step, self.context, self.args = name, step, context, args
        self.model = self.decode = build(name, args, context)
        if step == 'compiled':
            self.decode = torch.compile(
                self.model,
                fullgraph=True,
                dynamic=False,
                mode=None if args.device == 'cpu' else 'reduce-overhead',
            )
        self.ids = torch.randint(
            self.model.config.vocab_size, (args.batch_size, context), device=args.device
        )

    @torch.inference_mode()
    def round(self) -> dict[str, Any]:
        """Prefill, then decode; the seconds of the prefill and of each decoded
        token."""
        args, model = self.args, self.model
        length = self.context + args.new_tokens + WARM_UP
        # A compiled step needs a cache of fixed shapes.
        if self.step == 'compiled':
            cache = StaticCache(config=model.config, max_cache_len=length)
        else:
            cache = DynamicCache(config=model.config)
        synchronize(args.device)
        start = time.perf_counter()
        logits = model(self.ids, logits_to_keep=1, **as_argument(cache)).logits
        synchronize(args.device)
        prefill = time.perf_counter() - start
        token = logits[:, -1:].argmax(-1)
        decode, processor = [], []
        for _ in range(WARM_UP + args.new_tokens):
            start, start_processor = time.perf_counter(), time.thread_time()
            token = self.decode(token, **as_argument(cache)).logits[:, -1:].argmax(-1)
            # generate waits for every token as well, to check whether it is the last.
            synchronize(args.device)
            decode.append(time.perf_counter() - start)
            processor.append(time.thread_time() - start_processor)
        return dict(
            prefill=prefill,
            decode=decode[WARM_UP:],
            processor=processor[WARM_UP:],
            state=state_bytes(cache),
            weights=sum(p.nbytes for p in model.parameters()),
            peak=peak_memory(args.device),
        )


class Apart:
    """A :class:`Runner` in a process of its own."""

    def __init__(self, name: str, step: str, context: int) -> None:
        self.name, self.step, self.context = name, step, context
        command = [sys.executable, str(SCRIPT), *sys.argv[1:]]
        self.process = subprocess.Popen(
            [*command, '--one', f'{name},{step},{context}'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def round(self) -> dict[str, Any]:
        """As the runner's."""
        try:
            self.process.stdin.write('go\n')
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise SystemExit(
                f'{self.name}, {self.step}, at {self.context} tokens failed, see above.'
            ) from None

    def close(self) -> None:
        with suppress(BrokenPipeError):  # the process has failed
            self.process.stdin.close()
        self.process.wait()


def serve(runner: Runner) -> None:
    """Run one round for every line of the standard input."""
    for _ in sys.stdin:
        print(json.dumps(runner.round()), flush=True)


def take_turns(runners: list[Any], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rounds of all runners in turn, and the report of each runner.

    The first round includes one-time costs, such as compiling, and does not count.
    """
    rounds = [[runner.round() for runner in runners] for _ in range(args.repeats + 1)]
    return [
        summary(runner, [turn[i] for turn in rounds[1:]], args)
        for i, runner in enumerate(runners)
    ]


def summary(
    runner: Any, rounds: list[dict[str, Any]], args: argparse.Namespace
) -> dict[str, Any]:
    """Medians; for decoding over all tokens, so that interruptions do not count."""

    def median_token(key: str) -> float:
        return statistics.median(t for turn in rounds for t in turn[key])

    tokens = args.batch_size * runner.context
    return dict(
        model=runner.name,
        step=runner.step,
        context=runner.context,
        prefill=tokens / statistics.median(turn['prefill'] for turn in rounds),
        decode=args.batch_size / median_token('decode'),
        ms_per_token=1e3 * median_token('decode'),
        processor_ms_per_token=1e3 * median_token('processor'),
        state=rounds[-1]['state'],
        weights=rounds[-1]['weights'],
        peak=rounds[-1]['peak'],
    )


def measure_all(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every model, step and context length."""
    rows = []
    for context in args.contexts:
        cases = [(name, step) for step in args.steps for name in args.models]
        # One at a time on a GPU, where nothing else interferes and memory may be short.
        turns = [cases] if args.device == 'cpu' else [[case] for case in cases]
        for together in turns:
            names = ', '.join(f'{name} ({step})' for name, step in together)
            print(f'{context} tokens: {names} …', file=sys.stderr)
            runners = [Apart(*case, context) for case in together]
            try:
                rows += take_turns(runners, args)
            finally:
                for runner in runners:
                    runner.close()
    return rows


def settings(args: argparse.Namespace) -> str:
    """A description of the measurement and the machine."""
    if args.device == 'cpu':
        where = f'{torch.get_num_threads()} thread(s) of {processor_name()}'
        where += f', load average {os.getloadavg()[1]:.1f} of {os.cpu_count()} cores'
    else:
        where = torch.cuda.get_device_name(args.device)
    return (
        f'{args.size}, {args.dtype}, batch {args.batch_size}, {args.new_tokens} tokens '
        f'decoded, medians of {args.repeats} rounds, PyTorch {torch.__version__}, '
        f'{where}'
    )


def processor_name() -> str:
    try:
        found = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f'{"context":>8}  {"model":8}  {"step":8}  {"prefill tok/s":>13}  '
        f'{"ms/token":>8}  {"processor ms":>12}  {"state MiB":>9}  {"peak MiB":>8}  '
        f'{"vs teacher":>10}'
    ]
    base = {
        (r['context'], r['step']): r['decode'] for r in rows if r['model'] == 'teacher'
    }
    for row in rows:
        teacher = base.get((row['context'], row['step']))
        lines.append(
            f'{row["context"]:8}  {row["model"]:8}  {row["step"]:8}  '
            f'{row["prefill"]:13,.0f}  {row["ms_per_token"]:8.2f}  '
            f'{row["processor_ms_per_token"]:12.2f}  {row["state"] / 2**20:9.3f}  '
            f'{row["peak"] / 2**20:8,.0f}  '
            + (f'{row["decode"] / teacher:9.2f}x' if teacher else '')
        )
    return '\n'.join(lines)


QUANTITIES = (
    ('Milliseconds per token', 'ms_per_token', 1, '.2f'),
    ('Processor milliseconds per token', 'processor_ms_per_token', 1, '.2f'),
    ('State, MiB', 'state', 2**-20, '.3f'),
    ('Prefill, tokens per second', 'prefill', 1, ',.0f'),
    ('Peak memory of the process, MiB', 'peak', 2**-20, ',.0f'),
)


def markdown(rows: list[dict[str, Any]], header: str) -> str:
    """A table per quantity, with contexts as rows and models as columns."""
    columns = list(dict.fromkeys((row['model'], row['step']) for row in rows))
    contexts = list(dict.fromkeys(row['context'] for row in rows))
    by_case = {(row['model'], row['step'], row['context']): row for row in rows}
    parts = [header + '.']
    for title, key, factor, style in QUANTITIES:
        values = [
            [by_case[(*column, context)][key] * factor for column in columns]
            for context in contexts
        ]
        cells = [
            [f'{context:,}', *(f'{value:{style}}' for value in line)]
            for context, line in zip(contexts, values, strict=True)
        ]
        if len(contexts) > 1:
            growth = (b / a for a, b in zip(values[0], values[-1], strict=True))
            cells.append(['last by first', *(f'{ratio:.2f}' for ratio in growth)])
        names = [
            name if step == 'eager' else f'{name}, {step}' for name, step in columns
        ]
        lines = [['context', *names], ['---'] * (1 + len(columns)), *cells]
        parts.append(
            f'**{title}**\n\n' + '\n'.join(f'| {" | ".join(line)} |' for line in lines)
        )
    return '\n\n'.join(parts) + '\n'


def write_between_marks(path: Path, text: str) -> None:
    """Write to a new file, or between the marks of an existing one.

    Raises:
        ValueError: It has other text, and no marks.
    """
    begin, end = MARKS
    old = path.read_text() if path.exists() else ''
    if begin in old and end in old.partition(begin)[2]:
        head, _, rest = old.partition(begin)
        text = f'{head}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}'
    elif old.strip():
        raise ValueError(
            f'{path} has text, and not the lines {begin!r} and {end!r} between which '
            'the table would go; add them, or choose another file'
        )
    path.write_text(text)


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Set the defaults of the command line."""
    args.device = str(choose_device(args.device or 'auto'))
    if args.dtype is None:
        args.dtype = 'float32' if args.device == 'cpu' else 'bfloat16'
    if args.threads:
        torch.set_num_threads(args.threads)
    return args


def run(args: argparse.Namespace) -> None:
    """All models, or with ``--one`` the one that this process measures."""
    args = complete(args)
    if args.one:
        name, step, context = args.one.split(',')
        serve(Runner(name, step, int(context), args))
        return
    header = settings(args)
    rows = measure_all(args)
    print(header)
    print(table(rows))
    print(PAPER)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + '\n')
    if args.markdown:
        write_between_marks(args.markdown, markdown(rows, header))
