"""What the small reader makes of a folder of real films: `python bench/cxr.py [DIR] [--steps 1000 120] [--base drawn]` writes results/cxr.json.

Five folds by patient over a tree of folders, one for each class (default: ../shared/data/cxr, 120 films of three classes). `--base drawn` takes for the first stage the vision of a reader that has learnt from drawn films before, `--base small` the base as it is committed.
"""
import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medvlm import core
from medvlm.data import Quarantine, folds, open_image
from medvlm.films import cross_validate, film_rows, tell
from medvlm.labels import class_measures
from medvlm.lung import phantom_rows
from medvlm.stats import score_all
from medvlm.train import RECIPES
from medvlm.vision import vision_first
from medvlm.watch import Watch

HERE = Path(__file__).resolve().parent


def on_pixels(rows, k, seed):
    "What a logistic regression on 32 × 32 grey values makes of the same folds."
    grey = {r['id']: np.asarray(open_image(r['images'][0]).convert('L').resize((32, 32)), float).ravel() for r in rows}
    grey, said = {i: (g - g.mean())/g.std() for i, g in grey.items()}, {}
    for train, test in folds(rows, k, seed, by='label'):
        reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=.001)).fit([grey[r['id']] for r in train], [r['label'] for r in train])
        said |= dict(zip([r['id'] for r in test], reader.predict([grey[r['id']] for r in test])))
    names = tuple(sorted({r['label'] for r in rows}))
    return score_all(class_measures([r['label'] for r in rows], [said[r['id']] for r in rows], names), [r['group'] for r in rows])


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
    recipe, q = replace(RECIPES['lung_3b_small'], steps=a.steps[1], new_tokens=24, watch=Watch()), Quarantine()
    with tempfile.TemporaryDirectory() as folder:
        rows = film_rows([a.folder], recipe, f'{folder}/films', quarantine=q)
        if a.base == 'drawn':
            drawn = phantom_rows(f'{folder}/drawn', a.patients, 0, 1, 112, small=True)
            recipe = replace(recipe, base=str(vision_first(recipe, drawn, f'{folder}/base', 1000, strength=a.strength, say=lambda line: None)))
        start = time.time()
        models = cross_validate(recipe, rows, core.Run('cxr', folder), a.folds, a.steps[0], strength=a.strength, say=lambda line: print(line, flush=True) if line.startswith('fold') else None)
        seconds = time.time() - start
        plain = on_pixels(rows, a.folds, recipe.seed)
    print(tell(models)); classes = sorted({r['label'] for r in rows})
    shown = ('accuracy', 'macro-F1', *[f'recall {c}' for c in classes])
    pairs = [[t, s] for t, s in zip(models['tuned'].truth, models['tuned'].said)]
    scores = {k: e.scores for k, e in models.items()} | {'logistic regression on pixels': plain}
    core.save_json(dict(told={k: {m: vars(s[m]) for m in shown if m in s} for k, s in scores.items()}, pairs=pairs, classes=classes, films=len(rows), groups=len({r['group'] for r in rows}), folds=a.folds, base=a.base, steps=a.steps, strength=a.strength, seconds=seconds,
                        notes=len(q.notes), versions=core.versions(), machine=core.machine(), commit=core.commit()), a.out)


if __name__ == '__main__': main()
