"""The skin job whole on drawn faces: `python bench/skin.py [--people 60] [--steps 600 240]` writes results/skin.json.

A tree of folders as AI Hub has them is drawn, its faces are described by a server on this machine that writes as language models do, slips included, mended by rules and asked for again until they are clean; then the small reader is tuned on them and on pictures without a face, merged with proof, served by `transformers serve`, and asked through
the server about other people. The base is asked in the same way, beside always naming the most frequent class.
"""
import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from medvlm import core, eval as ev
from medvlm.annotate import Pace, annotate
from medvlm.data import text_of
from medvlm.labels import SKIN_CLASSES
from medvlm.ledger import Ledger
from medvlm.llm import Asking, Price, Provider, load_prompt
from medvlm.merge import merge
from medvlm.models import model_folder
from medvlm.samples import save_skin
from medvlm.serve import serving, speed_table
from medvlm.skin import NONE, batch_test, brief, clean, none_rows, skin_job, train_skin
from medvlm.sources import read_skin
from medvlm.standin import Flaws, SkinAnswer, Standin
from medvlm.train import RECIPES
from medvlm.watch import Watch
from medvlm.wording import DEFAULT

HERE = Path(__file__).resolve().parent
SHOWN = ('accuracy', 'macro-F1', 'Matthews', 'findings F1', 'ROUGE-L (char)', 'unparsable')


def few(done): return {k: vars(done.scores[k]) for k in SHOWN if k in done.scores}


def cases(rows, done, answers, n=3):
    "The first right and the first wrong answers, of different classes where there are so many."
    out = []
    for right in (True, False):
        some = [dict(id=r['id'], label=r['label'], true=text_of(r['messages'][-1]), said=a.text) for r, a, t, s in zip(rows, answers, done.truth, done.said) if (t == s) == right]
        out += list({c['label']: c for c in reversed(some)}.values())[:n]
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--people', type=int, default=60, help='of each class, to learn from')
    p.add_argument('--test', type=int, default=20, help='of each class, other people')
    p.add_argument('--steps', type=int, nargs=2, default=(600, 240), help='of the vision, of the language')
    p.add_argument('--out', default=HERE/'results'/'skin.json')
    a = p.parse_args()
    os.environ['MEDVLM_STANDIN_KEY'] = 'test'
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder); save_skin(folder/'tree', {'Training': ('TS', 'TL', a.people), 'Validation': ('VS', 'VL', a.test)}, 112)
        faces, rounds = read_skin(folder/'tree'), []
        with Standin(SkinAnswer(faces, Flaws(english=.25, label=.03, unclosed=.05, markdown=.04, cut=.05), seed=7)) as server, Ledger(folder/'asked.db') as book:
            asking = Asking(load_prompt('skin_ko'), 'standin', Provider(server.url + '/v1', 'MEDVLM_STANDIN_KEY'), price=Price(.15, .6, 'tiles', (2833, 5667)))
            annotate(faces, book, asking, pace=Pace(at_once=8), show=False)
            cleaned, left = clean(faces, book, asking, DEFAULT, pace=Pace(at_once=8), say=lambda line: (rounds.append(line), print(line, flush=True)))
        nothing = none_rows(folder/'none', 16)
        held = lambda r: r['meta']['part'] == 'Validation' or r['group'].startswith('none') and int(r['group'].split()[-1]) % 4 == 3
        rows = [brief(r) for r in cleaned + nothing] + [brief(r) for r in none_rows(folder/'more', 8, 100) if int(r['group'].split()[-1]) % 4 == 3]
        learn, test = [r for r in rows if not held(r)], [r for r in rows if held(r)]
        recipe, run = replace(RECIPES['skin_7b_small'], steps=a.steps[1], watch=Watch()), core.Run('skin', folder)
        start = time.time()
        bundle = train_skin(recipe, learn, run, test, first=a.steps[0], say=lambda line: print('   ', line, flush=True) if 'step' in line else None)
        seconds = time.time() - start
        proof = merge(bundle, folder/'merged', rows=test[:8], say=lambda line: None)
        told, answered = {}, {}
        for name, model in {'base': str(model_folder('small')), 'tuned': str(folder/'merged')}.items():
            with serving(model, log=folder/f'{name}.log') as url: done, answered[name] = batch_test(test, url, model, core.Run(name, folder), recipe.new_tokens if name == 'tuned' else 40)
            told[name] = few(done); print(name, {k: str(done.scores[k]) for k in ('accuracy', 'macro-F1', 'unparsable')}, flush=True)
        told['always one class'] = few(ev.majority(test, learn, skin_job()))
        classes = {k: vars(v) for k, v in done.scores.items() if k.endswith((*SKIN_CLASSES, NONE))}
        core.save_json(dict(told=told, classes=classes, pairs=[[t, s] for t, s in zip(done.truth, done.said)], cases=cases(test, done, answered['tuned']), rounds=rounds, left=len({p.id for p in left.problems}), learn=len(learn), test=len(test), steps=a.steps, seconds=seconds,
                            proven=proof['proven'], speed=speed_table(answered['tuned']).rows, versions=core.versions(), machine=core.machine(), commit=core.commit()), a.out)


if __name__ == '__main__': main()
