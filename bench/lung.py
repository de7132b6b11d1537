"""What the small reader makes of drawn films: `python bench/lung.py [--patients 400] [--steps 1500 320]` writes results/lung.json; with `--ablation` results/lung_ablation.json.

Drawn films of 112 × 112, one of each patient, eight classes, other patients in the test. The base is asked, tuned in two stages (vision first, then language, by `lung_3b_small`) and asked again, beside always naming the most frequent class. For the vision
alone: how well a logistic regression reads the class from the image tokens before and after the first stage. The ablation learns from classes of unequal size, the largest with eleven times the films of the smallest, and shows them in several ways; and it tunes the
language model by LoRA and by rsLoRA instead of fully. Every arm sees as many films, from the same base and seed.
"""
import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medvlm import core, eval as ev
from medvlm.augment import exposures, write_exposures
from medvlm.data import open_image, text_of
from medvlm.labels import LUNG_CLASSES, class_measures
from medvlm.losses import Loss
from medvlm.lung import SHOWN, lung_job, phantom_rows, score_lung, train_lung
from medvlm.models import Part, load, load_bundle
from medvlm.stats import pair, right_of, score, score_all
from medvlm.train import RECIPES
from medvlm.vision import image_tokens
from medvlm.watch import Watch

HERE = Path(__file__).resolve().parent/'results'


def features(base, recipe, rows):
    "Image tokens of each film as one row of numbers."
    model, processor = load(base, recipe.policy)
    out = []
    with torch.no_grad():
        for i in range(0, len(rows), 16):
            tokens = image_tokens(model, processor, [open_image(r['images'][0]) for r in rows[i:i + 16]]).float()
            out.append(torch.cat([tokens.mean(1), tokens.std(1), tokens.flatten(1)], 1).numpy())
    return np.concatenate(out)


def few(scores): return {k: vars(scores[k]) for k in SHOWN if k in scores}


def tuned(name, recipe, train, test, folder, valid=(), **how):
    "Train, ask, and say how long the training took."
    run, start = core.Run(name, folder), time.time()
    bundle = train_lung(recipe, train, run, [*test, *valid], valid, say=lambda line: print('   ', line, flush=True) if 'step' in line else None, **how)
    seconds = time.time() - start
    model, processor, _ = load_bundle(bundle)
    return score_lung('tuned', model, processor, test, recipe, run), seconds, run


def shown_cases(rows, done, texts, n=4):
    "The first `n` right and the first `n` wrong answers, of different classes where there are so many, with what the film can be drawn from again."
    out = []
    for right in (True, False):
        some = [dict(label=r['label'], patient=int(r['group'].split()[-1]), true=text_of(r['messages'][-1]), said=texts[r['id']], right=right) for r, t, s in zip(rows, done.truth, done.said) if (t == s) == right]
        first = list({c['label']: c for c in reversed(some)}.values())
        out += sorted(first + [c for c in some if c not in first], key=lambda c: c not in first)[:n]
    return out


def main_run(a, recipe, folder):
    train, test = phantom_rows(f'{folder}/train', a.patients, 0, 1, 112, small=True), phantom_rows(f'{folder}/test', a.test, 100_000, 1, 112, small=True)
    groups, true, told, measures = [r['group'] for r in test], [r['label'] for r in test], {}, {}
    model, processor = load('small', recipe.policy)
    told['base'] = few(score_lung('base', model, processor, test, recipe, core.Run('base', folder)).scores)
    told['always one class'] = few(ev.majority(test, train, lung_job()).scores)
    valid = phantom_rows(f'{folder}/valid', 8, 200_000, 1, 112, small=True)
    watch = Watch(every=a.steps[1]//3, rows=64, score='macro-F1', gate='ROUGE-L (word)', floor=.35, also=('macro-F1=0.5',), collapse=.9)
    done, seconds, run = tuned('lung', replace(recipe, watch=watch), train, test, folder, first=a.steps[0], valid=valid)
    cases = shown_cases(test, done, {x['id']: x['text'] for x in core.load_jsonl(run.path('answers_tuned.jsonl'))})
    told['tuned'] = few(done.scores)
    every = {k: vars(v) for k, v in done.scores.items() if k.endswith(tuple(LUNG_CLASSES))}
    pairs = [[t, s] for t, s in zip(done.truth, done.said)]
    for name, base in {'tokens of the base': 'small', 'tokens after the first stage': str(run.path('vision'))}.items():
        reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=.01)).fit(features(base, recipe, train), [r['label'] for r in train])
        measures[name] = class_measures(true, list(reader.predict(features(base, recipe, test))), tuple(LUNG_CLASSES))
        told[name] = few(score_all({k: measures[name][k] for k in SHOWN[:2]}, groups))
    difference = pair(*(m['accuracy'] for m in measures.values()), groups).difference
    return dict(told=told, classes=every, pairs=pairs, difference=vars(difference), seconds=seconds, loss=core.load_json(run.path('loss.json')), cases=cases, watch=core.load_jsonl(run.path('watch.jsonl')))


def ablation(a, recipe, folder):
    "Arms of balance and of LoRA, all from unequal classes."
    sizes = np.geomspace(220, 20, len(LUNG_CLASSES)).round().astype(int)
    order = ('Normal', *[c for c in LUNG_CLASSES if c != 'Normal'])
    drawn = phantom_rows(f'{folder}/train', int(sizes[0]), 0, 1, 112, small=True)
    train = [r for c, n in zip(order, sizes) for r in [d for d in drawn if d['label'] == c][:n]]
    test = phantom_rows(f'{folder}/test', a.test, 100_000, 1, 112, small=True)
    shown = exposures(train, int(sizes[0])*len(sizes), 'xray', 'equal')
    files = write_exposures(shown, f'{folder}/copies', test).parent/'images'
    copied = [dict(r, images=[str(files/f'{i:06}_0.png')]) for i, r in enumerate(shown)]
    lora = lambda rs: replace(recipe, tuning=replace(recipe.tuning, llm=Part('lora', 2e-3, r=32, alpha=32, dropout=0., rslora=rs, targets=('all-linear',))))
    arms = {'as they are': (recipe, train, 'natural'), 'copies': (recipe, copied, 'none'), 'focal loss': (replace(recipe, loss=Loss('focal', label=recipe.loss.label)), train, 'natural'),
            'sampler, tempered': (recipe, train, 'tempered'), 'sampler, equal': (recipe, train, 'equal'), 'equal, LoRA': (lora(False), train, 'equal'), 'equal, rsLoRA': (lora(True), train, 'equal')}
    told, seconds = {}, {}
    told['always one class'] = few(ev.majority(test, train, lung_job()).scores)
    for name, (r, rows, how) in arms.items():
        done, seconds[name], _ = tuned(name.replace(' ', '_').replace(',', ''), replace(r, name='arm'), rows, test, folder, first=a.steps[0], how=how)
        small = [i for i, x in enumerate(test) if x['label'] in order[-4:]]
        right = np.array([s == t for s, t in zip(done.said, done.truth)])
        told[name] = few(done.scores) | {'smaller half': vars(score(right_of([bool(x) for x in right[small]])))}
        print(name, done.scores['macro-F1'], told[name]['smaller half']['value'], f'{seconds[name]:.0f} s', flush=True)
    return dict(told=told, seconds=seconds, sizes=dict(zip(order, map(int, sizes))))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--patients', type=int, default=400)
    p.add_argument('--test', type=int, default=60)
    p.add_argument('--steps', type=int, nargs=2, default=(1500, 320), help='of the vision, of the language')
    p.add_argument('--ablation', action='store_true')
    p.add_argument('--out', default=None)
    a = p.parse_args()
    recipe = replace(RECIPES['lung_3b_small'], steps=a.steps[1], new_tokens=170, watch=Watch())
    with tempfile.TemporaryDirectory() as folder: out = (ablation if a.ablation else main_run)(a, recipe, folder)
    for name, scores in out['told'].items(): print(name, *(f'{k} {v["value"] if v["value"] is None else round(v["value"], 3)} [{v["low"]}, {v["high"]}]' for k, v in scores.items()), sep='; ')
    print(out['seconds'])
    core.save_json(dict(out, patients=a.patients, test=a.test, steps=a.steps, versions=core.versions(), machine=core.machine(), commit=core.commit()), a.out or HERE/('lung_ablation.json' if a.ablation else 'lung.json'))


if __name__ == '__main__': main()
