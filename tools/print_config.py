"""Print a config merged with all its bases, as training would read it.

print_config.py CONFIG                          # the whole config
print_config.py CONFIG --files                  # the files that make up the config
print_config.py CONFIG --cfg-options KEY=VALUE  # with values overridden
"""

import argparse

from _tool import KeyValues, Parser, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--files', action='store_true', help='the config and its bases, as a tree'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='override settings of the config, as in train.py',
    )
    args = parser.parse_args()
    if args.files and args.cfg_options:
        parser.error('--files lists files, whatever --cfg-options says; give one')
    return args


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.utils.config_files import chain
    from mmtransmamba.utils.launch import read_config

    cfg = read_config(args.config, args.cfg_options)
    if args.files:
        for depth, path in chain(args.config):
            print('  ' * depth + path)
    else:
        print(cfg.pretty_text, end='')


if __name__ == '__main__':
    main()
