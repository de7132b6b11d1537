"""How well films can be told apart by what the language model is given of them: `python bench/lung.py [--patients 240] [--steps 800]` writes results/lung.json.

Drawn films of 112 × 112, one of each patient, eight classes, other patients in the test. A logistic regression reads the class from the image tokens (mean, deviation and every token) of the base as it is committed, and of the same base after `lung.vision_first`.
This measures the first stage only; what the reader answers in words is another matter.
"""
import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medvlm import core
from medvlm.data import open_image
from medvlm.lung import image_tokens, phantom_rows, vision_first
from medvlm.models import load
from medvlm.stats import share
from medvlm.train import RECIPES


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
    p.add_argument('--steps', type=int, default=800)
    p.add_argument('--out', default=Path(__file__).resolve().parent/'results'/'lung.json')
    a = p.parse_args()
    recipe, told = RECIPES['lung_3b_small'], {}
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        train, test = phantom_rows(f'{folder}/train', a.patients, 0, 1, 112, small=True), phantom_rows(f'{folder}/test', a.test, 100_000, 1, 112, small=True)
        drawn, start = time.time() - start, time.time()
        learnt = vision_first(recipe, train, f'{folder}/base', a.steps)
        seconds = time.time() - start
        for name, base in dict(base='small', vision_first=str(learnt)).items():
            reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=.01)).fit(features(base, recipe, train), [r['label'] for r in train])
            said, true = reader.predict(features(base, recipe, test)), [r['label'] for r in test]
            told[name] = dict(accuracy=vars(share([s == t for s, t in zip(said, true)])), macro_f1=float(f1_score(true, said, average='macro')))
            print(name, share([s == t for s, t in zip(said, true)]), f"macro-F1 {told[name]['macro_f1']:.3f}", flush=True)
    core.save_json(dict(told=told, seconds=round(seconds, 1), drawn=round(drawn, 1), patients=a.patients, test=a.test, steps=a.steps, versions=core.versions(), machine=core.machine(), commit=core.commit()), a.out)
    print(f'{seconds:.0f} s of vision, {drawn:.0f} s of drawing')


if __name__ == '__main__': main()
