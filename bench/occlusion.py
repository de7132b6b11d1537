"""What the answers of the small reader rest on: `python bench/occlusion.py [--patients 200] [--test 60] [--steps 400]` writes results/occlusion.json.

Drawn films of 112 × 112, without a finding or with fluid on one side, one of each patient, other patients in the test. Five models are asked how likely the true answer is while one place of the film after the other is covered: one tuned to say class and side, the
same from another seed, one tuned on answers dealt out by chance, one tuned on films of which those with fluid have a mark in a corner, and the base, which never saw a film. Measured is how much of the drop lies in the box of the finding, and how alike the maps are.
"""
import argparse
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from medvlm import core
from medvlm.data import text_of
from medvlm.lung import train_lung
from medvlm.models import ImagePolicy, Part, Tuning, load, load_bundle
from medvlm.occlusion import MARK, box_measures, boxed_films, map_likeness, marked, occlusion_map
from medvlm.stats import mean_of, right_of, score_all
from medvlm.train import RECIPES, ask
from medvlm.watch import Watch

WAYS = {'median': {}, 'blur': dict(how='blur'), 'patches half as wide': dict(patch=.125), 'patches twice as wide': dict(patch=.5)}


def dealt(rows):
    "The rows with the answers of others, dealt out by chance."
    order = random.Random('dealt').sample(rows, len(rows))
    return [dict(r, label=o['label'], messages=o['messages']) for r, o in zip(rows, order)]


def with_mark(rows):
    "The rows with a mark on every film with fluid."
    return [dict(r, images=[marked(r['images'][0])]) if r['label'] == 'Fluid' else r for r in rows]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--patients', type=int, default=200, help='of each class, to learn from')
    p.add_argument('--test', type=int, default=60, help='of each class')
    p.add_argument('--steps', type=int, default=400)
    p.add_argument('--out', default=Path(__file__).resolve().parent/'results'/'occlusion.json')
    a = p.parse_args()
    plan = Tuning(Part('full', 5e-4), Part('full', 1e-3), Part('full', 1e-3))
    recipe = replace(RECIPES['lung_3b_small'], policy=ImagePolicy(28*28, 96*28*28), steps=a.steps, tuning=plan, new_tokens=24, watch=Watch(), cache=False)
    learn, test = boxed_films(a.patients, side=True), boxed_films(a.test, 100_000, side=True)
    fluid, groups = [r for r in test if r['label'] == 'Fluid'], [r['group'] for r in test]
    base, processor = load('small', recipe.policy)
    models, accuracy, maps, shares = {'never saw a film': base}, {}, {}, {}

    def right(name, rows, class_only=False):
        "Share of the answers that are right, class and side."
        of = lambda text: text.split('\n')[0] if class_only else text
        hits = [of(x.text) == of(text_of(r['messages'][-1])) for x, r in zip(ask(models[name], processor, rows, recipe.new_tokens), rows)]
        return score_all(dict(right=right_of(hits)), [r['group'] for r in rows])['right']

    def measured(key, name, rows, way='median', words=None, boxes=None):
        "Maps of the rows, and how much of them lies in the boxes."
        kw = WAYS[way]
        maps[key] = [occlusion_map(models[name], processor, r, words=words and words(r), **kw)[0] for r in rows]
        shares[key] = inside(maps[key], rows, **{k: v for k, v in kw.items() if k == 'patch'})
        print(key, shares[key]['in the box'], shares[key]['in its mirror image'], flush=True)

    def inside(drops, rows, **kw): return score_all(box_measures(rows, drops, **kw), [r['group'] for r in rows])

    with tempfile.TemporaryDirectory() as folder:
        for name, rows, seed in (('tuned', learn, 42), ('other seed', learn, 1), ('answers by chance', dealt(learn), 42), ('marked', with_mark(learn), 42)):
            own = with_mark(test) if name == 'marked' else test
            bundle = train_lung(replace(recipe, seed=seed), rows, core.Run(name.replace(' ', '_'), folder), own, how='none', say=lambda line: None)
            models[name] = load_bundle(bundle)[0]
            accuracy[name] = right(name, own)
            print(name, accuracy[name], flush=True)
    accuracy['marked, films without marks'] = right('marked', test)
    for part in ('Clear', 'Fluid'): accuracy[f'marked, {part} without marks'] = right('marked', [r for r in test if r['label'] == part], True)
    for name in ('tuned', 'other seed', 'answers by chance', 'never saw a film'): measured(name, name, fluid)
    for way in list(WAYS)[1:]: measured(f'tuned, {way}', 'tuned', fluid, way)
    measured('tuned, the side', 'tuned', fluid, words=lambda r: r['meta']['side'])
    measured('marked', 'marked', with_mark(fluid))
    on_mark = [dict(r, meta=dict(r['meta'], box=MARK)) for r in with_mark(fluid)]
    shares['marked, box of the mark'] = inside(maps['marked'], on_mark)
    like = {k: score_all(dict(like=mean_of([map_likeness(x, y) for x, y in zip(maps['tuned'], maps[k])])), [r['group'] for r in fluid])['like'] for k in ('other seed', 'answers by chance', 'marked', 'never saw a film', 'tuned, blur', 'tuned, the side')}
    for k, s in {**accuracy, **like}.items(): print(k, s)
    largest = {k: [float(np.median([m.max() for m in v])), float(max(m.max() for m in v))] for k, v in maps.items()}
    areas = [(b[2] - b[0])*(b[3] - b[1]) for b in (r['meta']['box'] for r in fluid)]
    by_area = float(spearmanr([m.max() for m in maps['tuned']], areas)[0])
    print('largest drop and area of the box', by_area)
    example = {k: [m.round(3).tolist() for m in maps[k][:4]] for k in ('tuned', 'answers by chance', 'marked', 'tuned, the side')}
    core.save_json(dict(accuracy={k: vars(s) for k, s in accuracy.items()}, shares={k: {m: vars(s) for m, s in v.items()} for k, v in shares.items()}, likeness={k: vars(s) for k, s in like.items()}, largest=largest, by_area=by_area, example=example,
                        patients=a.patients, test=a.test, steps=a.steps, versions=core.versions(), machine=core.machine(), commit=core.commit()), a.out)


if __name__ == '__main__': main()
