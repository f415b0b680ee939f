"""Convert the BCCD data set from Pascal VOC's annotations to COCO's.

    python projects/detection/bccd_to_coco.py BCCD_Dataset/BCCD data/bccd

reads ``Annotations``, ``ImageSets/Main`` and ``JPEGImages`` of the published set and
writes ``train.json``, ``val.json``, ``test.json`` and ``images``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

CLASSES = ('RBC', 'WBC', 'Platelets')
SPLITS = ('train', 'val', 'test')


def read_boxes(annotation: Path) -> list[tuple[int, list[float]]]:
    """Category, counted from 1, and COCO box of each object in a VOC file.

    Boxes without area, of which the set has two, are left out.

    Raises:
        ValueError: An object is not one of ``CLASSES``.
    """
    boxes = []
    for item in ElementTree.parse(annotation).iter('object'):
        name = item.findtext('name')
        if name not in CLASSES:
            raise ValueError(
                f'{annotation}: object "{name}" is none of {", ".join(CLASSES)}.'
            )
        left, top, right, bottom = (
            float(item.findtext(f'bndbox/{side}'))
            for side in ('xmin', 'ymin', 'xmax', 'ymax')
        )
        if right > left and bottom > top:
            box = [left, top, right - left, bottom - top]
            boxes.append((CLASSES.index(name) + 1, box))
    return boxes


def convert_split(source: Path, split: str) -> dict:
    """The COCO annotations of one split."""
    images, annotations = [], []
    names = (source / f'ImageSets/Main/{split}.txt').read_text('utf-8-sig').split()
    for image_id, name in enumerate(names, start=1):
        path = source / f'Annotations/{name}.xml'
        size = ElementTree.parse(path).find('size')
        images.append(
            dict(
                id=image_id,
                file_name=f'{name}.jpg',
                width=int(size.findtext('width')),
                height=int(size.findtext('height')),
            )
        )
        for category, box in read_boxes(path):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=category,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)]
    return dict(images=images, annotations=annotations, categories=categories)


def convert(source: Path, target: Path) -> None:
    """Write the annotations of all splits, and copy the images."""
    (target / 'images').mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        coco = convert_split(source, split)
        (target / f'{split}.json').write_text(json.dumps(coco))
        for image in coco['images']:
            name = image['file_name']
            shutil.copyfile(source / 'JPEGImages' / name, target / 'images' / name)
        print(
            f'{split}: {len(coco["images"])} images, {len(coco["annotations"])} boxes'
        )


def main() -> None:
    parser = argparse.ArgumentParser(description='Convert BCCD from VOC to COCO')
    parser.add_argument(
        'source', type=Path, help='the folder BCCD of the published set'
    )
    parser.add_argument('target', type=Path, help='folder to write to')
    args = parser.parse_args()
    convert(args.source, args.target)


if __name__ == '__main__':
    main()
