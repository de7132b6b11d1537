"""What the small reader makes of drawn films: `python bench/lung.py [--patients 240] [--steps 800 360]` writes results/lung.json.

Drawn films of 112 × 112, one of each patient, eight classes, other patients in the test. First how well a logistic regression reads the class from the image tokens (mean, deviation and every token), of the base as it is committed and of the same base after
`lung.vision_first`; then what the reader says in words after the second stage, beside always naming the most frequent class.
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

from medvlm import core
from medvlm.data import open_image
from medvlm.labels import LUNG_CLASSES, class_measures
from medvlm.lung import image_tokens, majority, phantom_rows, score_lung, train_lung, vision_first
from medvlm.models import Part, Tuning, load, load_bundle
from medvlm.stats import pair, score_all
from medvlm.train import RECIPES
from medvlm.watch import Watch

SHOWN = ('accuracy', 'macro-F1')


def features(base, recipe, rows):
    "Image tokens of each film as one row of numbers."
    model, processor = load(base, recipe.policy)
    out = []
    with torch.no_grad():
        for i in range(0, len(rows), 16):
            tokens = image_tokens(model, processor, [open_image(r['images'][0]) for r in rows[i:i + 16]]).float()
            out.append(torch.cat([tokens.mean(1), tokens.std(1), tokens.flatten(1)], 1).numpy())
    return np.concatenate(out)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--patients', type=int, default=240)
    p.add_argument('--test', type=int, default=20)
    p.add_argument('--steps', type=int, nargs=2, default=(800, 360), help='of the vision, of the language')
    p.add_argument('--out', default=Path(__file__).resolve().parent/'results'/'lung.json')
    a = p.parse_args()
    recipe = replace(RECIPES['lung_3b_small'], steps=a.steps[1], new_tokens=120, watch=Watch(), cache=False)
    measures, told, seconds = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        train, test = phantom_rows(f'{folder}/train', a.patients, 0, 1, 112, small=True), phantom_rows(f'{folder}/test', a.test, 100_000, 1, 112, small=True)
        groups, true = [r['group'] for r in test], [r['label'] for r in test]
        start = time.time(); learnt = str(vision_first(recipe, train, f'{folder}/base', a.steps[0])); seconds['vision'] = time.time() - start
        for name, base in {'tokens of the base': 'small', 'tokens after the first stage': learnt}.items():
            reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=.01)).fit(features(base, recipe, train), [r['label'] for r in train])
            measures[name] = class_measures(true, list(reader.predict(features(base, recipe, test))), tuple(LUNG_CLASSES))
            told[name] = score_all({k: measures[name][k] for k in SHOWN}, groups)
        tuning = Tuning(Part('full', 2e-4), Part('full', 1e-3), recipe.tuning.llm)
        run = core.Run('lung', folder)
        start = time.time(); bundle = train_lung(replace(recipe, base=learnt, tuning=tuning), train, run, test, say=lambda line: None); seconds['language'] = time.time() - start
        model, processor, _ = load_bundle(bundle)
        told['words after the second stage'] = score_lung('tuned', model, processor, test, recipe, run).scores
        told['always one class'] = majority(test, train).scores
    difference = pair(*(m['accuracy'] for m in measures.values()), groups).difference
    for name, scores in told.items(): print(name, *(f'{k} {scores[k]}' for k in SHOWN), sep='; ')
    print('difference of the tokens', difference, {k: round(v) for k, v in seconds.items()})
    core.save_json(dict(told={k: {m: vars(s[m]) for m in SHOWN} for k, s in told.items()}, difference=vars(difference), seconds=seconds, patients=a.patients, test=a.test, steps=a.steps, versions=core.versions(), machine=core.machine(), commit=core.commit()), a.out)


if __name__ == '__main__': main()
