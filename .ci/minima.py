"""Print the lowest versions that requirements/*.txt declare, as pip constraints."""

import re
import sys
from pathlib import Path

requirements = Path(__file__).resolve().parent.parent / 'requirements'
for name in ('runtime', 'tests', 'build'):
    for line in (requirements / f'{name}.txt').read_text(encoding='utf-8').splitlines():
        requirement = line.split('#')[0].strip()
        if not requirement:
            continue
        match = re.match(
            r'([\w.-]+)(?:>=([\w.]+)(?:,<[\w.]+)?|==([\w.*]+))$', requirement
        )
        if match is None:
            sys.exit(f'requirements/{name}.txt: "{requirement}" has no lower bound')
        package, lowest, exact = match.groups()
        print(f'{package}=={lowest or exact}')
