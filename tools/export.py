"""Export a trained vision model to ONNX, TorchScript or torch.export.

The model is what remains after training (of a distiller the student), as a function
from normalised images to logits. The file is compared with PyTorch before it gets its
name. docs/export.md says what works and how fast it is.
"""

import argparse
import sys
from pathlib import Path

# A clean checkout needs no installation of the package itself.
_ROOT = Path(__file__).absolute().parent.parent
if (_ROOT / 'mmtransmamba' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--format', choices=('onnx', 'torchscript', 'torch_export'), required=True
    )
    parser.add_argument(
        '--out', required=True, help='file to write: .onnx, .pt or .pt2 by the format'
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='SIZE',
        help='side of the images, height and width, or frames, height and width, which '
        "the file then has fixed; by default the backbone's img_size, or 224",
    )
    parser.add_argument(
        '--batch', type=int, help='a fixed batch size; by default any is accepted'
    )
    parser.add_argument(
        '--features',
        action='store_true',
        help="the backbone's features instead of the logits",
    )
    parser.add_argument('--opset', type=int, help='ONNX operator set (default: 20)')
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
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    return parser.parse_args()


def read_options(pairs: list[str] | None) -> dict:
    """``KEY=VALUE`` as mmengine reads them."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    if not pairs:
        return {}
    for pair in pairs:
        if '=' not in pair:
            raise ValueError(f'--cfg-options {pair}: accepted are KEY=VALUE')
    return parser.parse_args(['--cfg-options', *pairs]).cfg_options


def main() -> None:
    args = parse_args()
    # After the arguments, so that --help and their errors come at once.
    import mmtransmamba  # noqa: F401, I001  (first: it bridges the imports that follow)
    from mmtransmamba.apis.export import export_model, load_for_export

    try:
        model, shape = load_for_export(
            args.config, args.checkpoint, args.shape, read_options(args.cfg_options)
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
    except (FileNotFoundError, ImportError, RuntimeError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: error: {error}')
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
