"""Make the tags of reasoning (<SUMMARY>, …) tokens of a vision-language model.

Optional: by default the tags are text as any other. Do this before the model learns to
reason, and convert the student from the result.
"""

import argparse
import sys
from pathlib import Path

# A clean checkout needs no installation of the package itself.
_ROOT = Path(__file__).absolute().parent.parent
if (_ROOT / 'mmtransmamba' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

import mmtransmamba  # noqa: F401, I001  (first: it bridges the imports that follow)

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.multimodal.reasoning_tags import add_reasoning_tags
from mmtransmamba.transfer.vision_language import load_vlm
from mmtransmamba.utils.model_files import Companions
from mmtransmamba.utils.reasoning_text import TAGS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', help='folder of the model with its processor')
    parser.add_argument('--out', type=Path, required=True, help='folder to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        if args.out.exists():
            raise FileExistsError(f'{args.out} exists.')
        companions = Companions(args.model)
        model = load_vlm(args.model)
        ids = add_reasoning_tags(model, companions.processor)
    except (FileNotFoundError, FileExistsError, CheckpointError, ValueError) as error:
        sys.exit(f'error: {error}')
    model.save_pretrained(args.out)
    companions.processor.save_pretrained(args.out)
    for tag, number in zip(TAGS, ids, strict=True):
        print(f'{tag:14} {number}')
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
