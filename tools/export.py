"""Export a trained vision model to ONNX, TorchScript or torch.export.

The exported model (for a distiller, its student) is a function from normalised images
to logits. The file is compared with PyTorch before it gets its final name.
docs/export.md lists the supported models.
"""

from __future__ import annotations

import argparse

from _tool import KeyValues, Parser, out_file, positive, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--format', choices=('onnx', 'torchscript', 'torch_export'), required=True
    )
    parser.add_argument(
        '--out',
        type=out_file,
        required=True,
        help='file to write: .onnx, .pt or .pt2 by the format',
    )
    parser.add_argument(
        '--shape',
        type=positive,
        nargs='+',
        metavar='SIZE',
        help='side of the images, height and width, or frames, height and width, which '
        "the file then has fixed; by default the backbone's img_size, or 224",
    )
    parser.add_argument(
        '--batch', type=positive, help='a fixed batch size; by default any is accepted'
    )
    parser.add_argument(
        '--features',
        action='store_true',
        help="the backbone's features instead of the logits",
    )
    parser.add_argument(
        '--opset', type=positive, help='ONNX operator set (default: 20)'
    )
    parser.add_argument(
        '--scan',
        choices=('portable', 'native'),
        default='portable',
        help='scans as ordinary operators, or (not in ONNX) as those of this package: '
        'faster, but the file then needs it (default: %(default)s)',
    )
    parser.add_argument(
        '--no-check', action='store_true', help='do not compare with PyTorch'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.apis.export import export_model, load_for_export

    model, shape = load_for_export(
        args.config, args.checkpoint, args.shape, args.cfg_options
    )
    report = export_model(
        model,
        shape,
        args.out,
        args.format,
        batch=args.batch,
        features=args.features,
        opset=args.opset,
        scan=args.scan,
        check=not args.no_check,
    )
    nodes = '' if report.nodes is None else f', {report.nodes} nodes'
    print(f'wrote   {report.path} ({report.size / 2**20:.1f} MiB{nodes})')
    print(f'input   {" x ".join(map(str, report.inputs))}, normalised')
    print(f'output  {", ".join(report.outputs)}')
    for batch, difference in report.differences.items():
        print(f'checked batch {batch}: {difference:.1e} from PyTorch')
    if not report.differences:
        print('not checked')


if __name__ == '__main__':
    main()
