#!/usr/bin/env python3
"""Run notebooks in place and keep their outputs.

Skips what `nbdev_test` skips: cells under a flag of `tst_flags`, `eval: false` and the export cell. Skipped cells keep the outputs they have.
Every notebook gets a process of its own, in its own folder. One that fails is left as it was, and the exit code is 1. What is written is in
the form of `nbdev_clean`, without stderr and progress bars, so that a second run changes nothing.
"""
import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

# Whatever follows the machine or the moment and would show in an output.
FIXED = {'PYTHONHASHSEED': '0', 'COLUMNS': '100'}
WIDGET = 'application/vnd.jupyter.widget-view+json'


def default_notebooks():
    "All notebooks of the project around the working directory, in name order."
    from nbdev.config import get_config
    folder = Path(get_config().nbs_path)
    return sorted(p for p in folder.glob('*.ipynb') if p.name[0] not in '._') if not (folder / '.notest').exists() else []


def is_skipped(cell, flags):
    "The rules of nbdev_test, for a cell with its directives extracted."
    directives = getattr(cell, 'directives_', None) or {}
    return (cell.cell_type != 'code' or 'nbdev_export' + '(' in cell.source
            or directives.get('eval:', [''])[0].lower() == 'false' or bool(flags & directives.keys()))


def last_frames(lines):
    "`lines` as a terminal leaves them: of a line redrawn with carriage returns only the last frame."
    return re.sub(r'[^\r\n]*\r(?=[^\n])', '', ''.join(lines)).splitlines(True)


def kept(outputs):
    "`outputs` without stderr, widgets and progress bars."
    res = []
    for out in outputs:
        data = out.get('data', {})
        if out['output_type'] == 'stream':
            if out['name'] == 'stderr': continue
            out['text'] = last_frames(out['text'])
        elif WIDGET in data or '<progress' in ''.join(data.get('text/html', [])): continue
        res.append(out)
    return res


def run_one(path, extra_flags):
    "Run the notebook at `path` in this process and write it back; return whether it passed."
    from execnb.nbio import nb2dict, nb2str
    from execnb.shell import CaptureShell
    from fastcore.basics import str2bool
    from nbdev.clean import clean_nb
    from nbdev.config import get_config
    from nbdev.frontmatter import FrontmatterProc
    from nbdev.process import NBProcessor, nb_lang

    cfg = get_config()
    sys.path.insert(0, str(cfg.config_path))
    flags = set(cfg.tst_flags.split()) - set(extra_flags)
    source = path.read_text(encoding='utf-8')
    stored = json.loads(source)
    nb, matter = NBProcessor(path).nb, NBProcessor(path, procs=FrontmatterProc, process=True).nb.frontmatter_
    if str2bool(matter.get('skip_exec', False)) or nb_lang(nb) != 'python': return True

    shell = CaptureShell(path, mpl_format='png')
    for cell, target in zip(nb.cells, stored['cells'], strict=True):
        if is_skipped(cell, flags): continue
        outputs = shell.run(cell.source)
        if shell.exc:
            shell._cell_idx = cell.idx_ + 1
            print(shell.prettytb(fname=path.name), file=sys.stderr)
            return False
        target['outputs'] = nb2dict(kept(outputs))
    clean_nb(stored, allowed_metadata_keys=cfg.get('allowed_metadata_keys').split(),
             allowed_cell_metadata_keys=cfg.get('allowed_cell_metadata_keys').split(), clean_ids=cfg.clean_ids)
    text = nb2str(stored)
    if text != source:
        beside = path.with_name(f'.{path.name}.{os.getpid()}')
        beside.write_text(text, encoding='utf-8')
        beside.replace(path)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('notebooks', nargs='*', type=Path, help='notebooks to run; all of the project when none is given')
    parser.add_argument('--flags', default='', help='flags of tst_flags whose cells run all the same, separated by spaces')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here: sys.exit(not run_one(args.notebooks[0], args.flags.split()))

    paths = [p.resolve() for p in args.notebooks or default_notebooks()]
    missing = [str(p) for p in paths if not p.is_file()]
    if missing or not paths: sys.exit(f"No such notebook: {', '.join(missing)}" if missing else 'No notebooks found: run this inside the project.')
    failed = []
    for path in paths:
        print(path.name, end=' ', flush=True)
        command = [sys.executable, str(Path(__file__).resolve()), '--here', '--flags', args.flags, str(path)]
        bad = subprocess.run(command, cwd=path.parent, env={**os.environ, **FIXED}, stdin=subprocess.DEVNULL).returncode
        print(f'failed ({bad}), left as it was' if bad else 'ran')
        if bad: failed.append(path.name)
    if failed: sys.exit(f"{len(failed)} of {len(paths)} notebooks failed: {', '.join(failed)}")


if __name__ == '__main__': main()
