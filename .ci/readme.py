#!/usr/bin/env python3
"""Write README.md from nbs/index.ipynb, without Quarto; `--check` only says whether it is in step.

Hidden and exported cells are left out and directives taken off. Figures go to index_files/. Links to other notebooks are made to work from
the root of the project.
"""
import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
DIRECTIVE = re.compile(r'^\s*#\s*\|\s*(\S+?):?(?:\s|$)')
HIDDEN = {'hide', 'default_exp', 'export', 'exporti', 'exports'}


def directives(cell):
    "Names of the directives at the head of a code cell."
    names = []
    for line in cell.source.splitlines():
        match = DIRECTIVE.match(line)
        if not match and line.strip(): break
        if match: names.append(match[1])
    return names


def for_readers(
    nb,                 # A notebook as nbformat reads it; it is changed
    hidden=HIDDEN,      # Directives whose cells are left out
):
    "`nb` without cells under `hidden` and the export cell, and without directives in those that stay."
    cells = []
    for cell in nb.cells:
        if cell.cell_type == 'raw': continue
        if cell.cell_type == 'code':
            names = set(directives(cell))
            if not cell.source.strip() or names & set(hidden) or 'nbdev_export' + '(' in cell.source: continue
            lines = cell.source.splitlines()
            while lines and (DIRECTIVE.match(lines[0]) or not lines[0].strip()): lines.pop(0)
            cell.source = '\n'.join(lines)
            cell.outputs = [out for out in cell.outputs if out.output_type != 'error' and out.get('name') != 'stderr']
            if not cell.source and not cell.outputs: continue
        cells.append(cell)
    nb.cells = cells
    return nb


def render(path):
    "Markdown of the notebook at `path`, and the bytes of its figures by name."
    nb = for_readers(nbformat.read(path, as_version=4))
    for cell in nb.cells:
        if cell.cell_type == 'markdown': cell.source = re.sub(r'\]\((?!\w+:|/|#)([^)]+\.ipynb)\)', rf'](nbs/\1)', cell.source)
    resources = {'output_files_dir': f'{Path(path).stem}_files', 'unique_key': Path(path).stem}
    text, resources = MarkdownExporter().from_notebook_node(nb, resources)
    text = re.sub(r'\n{3,}', '\n\n', '\n'.join(line.rstrip() for line in text.splitlines())).strip() + '\n'
    return text, resources['outputs']


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; exit with 1 when README.md is out of step')
    args = parser.parse_args()
    text, figures = render(ROOT / 'nbs/index.ipynb')
    wanted = {'README.md': text.encode(), **figures}
    stale = [p for p in ROOT.glob('index_files/*') if p.relative_to(ROOT).as_posix() not in wanted]
    different = [name for name, data in wanted.items() if not (ROOT / name).is_file() or (ROOT / name).read_bytes() != data]
    if args.check:
        names = different + [p.relative_to(ROOT).as_posix() for p in stale]
        sys.exit(f"Out of step with nbs/index.ipynb: {', '.join(names)}; run make readme" if names else 0)
    for path in stale: path.unlink()
    for name in different:
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_bytes(wanted[name])
    print('README.md ' + ('written' if different or stale else 'was in step'))


if __name__ == '__main__': main()
