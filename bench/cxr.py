"""What the small reader makes of a folder of real films: `python bench/cxr.py [DIR] [--steps 1000 120] [--base drawn]` writes results/cxr.json.

Five folds by patient over a tree of folders, one for each class (default: ../shared/data/cxr, 120 films of three classes). `--base drawn` takes for the first stage the vision of a reader that has learnt from drawn films before, `--base small` the base as it is committed.
"""
import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from medvlm import core
from medvlm.data import Quarantine
from medvlm.films import cross_validate, film_rows, tell
from medvlm.lung import phantom_rows
from medvlm.train import RECIPES
from medvlm.vision import vision_first
from medvlm.watch import Watch

HERE = Path(__file__).resolve().parent


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', nargs='?', default=HERE.parents[1]/'shared'/'data'/'cxr')
    p.add_argument('--steps', type=int, nargs=2, default=(1000, 120), help='of the vision, of the language')
    p.add_argument('--base', default='drawn', choices=('small', 'drawn'))
    p.add_argument('--patients', type=int, default=200, help='of each class, drawn for the base')
    p.add_argument('--folds', type=int, default=5)
    p.add_argument('--strength', type=float, default=1., help='of the augmentation in the first stage')
    p.add_argument('--out', default=HERE/'results'/'cxr.json')
    a = p.parse_args()
    recipe, q = replace(RECIPES['lung_3b_small'], steps=a.steps[1], new_tokens=24, views=3, watch=Watch()), Quarantine()
    with tempfile.TemporaryDirectory() as folder:
        rows = film_rows([a.folder], recipe, f'{folder}/films', quarantine=q)
        if a.base == 'drawn':
            drawn = phantom_rows(f'{folder}/drawn', a.patients, 0, 1, 112, small=True)
            recipe = replace(recipe, base=str(vision_first(recipe, drawn, f'{folder}/base', 1000, say=lambda line: None)))
        start = time.time()
        models = cross_validate(recipe, rows, core.Run('cxr', folder), a.folds, a.steps[0], strength=a.strength, say=lambda line: print(line, flush=True) if line.startswith('fold') else None)
        seconds = time.time() - start
    print(tell(models)); classes = sorted({r['label'] for r in rows})
    shown = ('accuracy', 'macro-F1', *[f'recall {c}' for c in classes])
    pairs = [[t, s] for t, s in zip(models['tuned'].truth, models['tuned'].said)]
    core.save_json(dict(told={k: {m: vars(e.scores[m]) for m in shown} for k, e in models.items()}, pairs=pairs, classes=classes, films=len(rows), groups=len({r['group'] for r in rows}), folds=a.folds, base=a.base, steps=a.steps, strength=a.strength, views=recipe.views, seconds=seconds,
                        notes=len(q.notes), versions=core.versions(), machine=core.machine(), commit=core.commit()), a.out)


if __name__ == '__main__': main()
