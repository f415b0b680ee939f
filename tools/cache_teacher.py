"""Record what a language teacher says of its config's training data.

For every position, the k most likely next tokens, their logits and the probability left
over are written to a folder. Trainings read them with
`model.teacher=dict(type='mmtransmamba.CachedTeacher', folder=...)`, and no teacher
runs. An interrupted recording continues when it is started again.
"""

from __future__ import annotations

import argparse

from _tool import KeyValues, Parser, out_folder, tool, whole


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('config', help='config of a language distiller')
    parser.add_argument(
        '--out', type=out_folder, required=True, help='folder of the cache'
    )
    parser.add_argument(
        '--k', type=whole(1), default=64, help='tokens per position (default: 64)'
    )
    parser.add_argument(
        '--dtype',
        choices=('float32', 'float16', 'bfloat16'),
        default='float16',
        help='of the logits (default: float16)',
    )
    parser.add_argument(
        '--shard-samples',
        type=whole(1),
        default=256,
        help='samples per shard (default: 256)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='override values of the config',
    )
    return parser.parse_args()


@tool(parse_args, 'interrupted; the same command goes on from the last shard')
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.apis.token_recording import record_config
    from mmtransmamba.utils.launch import read_config

    manifest = record_config(
        read_config(args.config, args.cfg_options),
        args.out,
        k=args.k,
        dtype=args.dtype,
        shard_samples=args.shard_samples,
        on_shard=lambda m: print(f'{m.done} of {m.samples} samples', flush=True),
    )
    print(f'{manifest.samples} samples in {args.out}')


if __name__ == '__main__':
    main()
