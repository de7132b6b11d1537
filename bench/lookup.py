"""How fast answers are found in a library of many: `python bench/lookup.py [--answers 100000] [--rounds 3]`.

The sample tree has 96 answers; the others are made up: 55 words each, four in five drawn from the words of the sample answers as often as they occur there, one in five from 50,000 made-up words of two to four syllables by Zipf's law, in 4,400 folders.
Real answers repeat less, so that the lists of the n-grams are longer here than in a real library of that size. The questions are those of the sample. Building and asking run in processes of their own, whose largest memory without mapped files is counted above what they held before. Seconds are those of the processor, so that other work on the machine counts less. Writes bench/results/lookup.json.
"""
import argparse
import os
import random
import statistics
import tempfile
import time
from itertools import accumulate
from pathlib import Path

from data import alone

from medvlm.core import commit, machine, save_json, versions
from medvlm.data import assistant, row, text_of, user
from medvlm.lookup import Lookup, load_lookup, question_of
from medvlm.sources import QaTree

TREE = Path(__file__).parents[1] / 'data_samples' / 'qa'
INTENTIONS = '증상 원인 치료 약물 예방 진단 검진 운동 재활 정의 식이'.split()


def made_up(n):
    "Rows with `n` answers, one by one."
    rng, known = random.Random(0), [w for r in QaTree(TREE) for w in text_of(r['messages'][-1]).split()]
    word = lambda: ''.join(chr(0xac00 + rng.randrange(11172)) for _ in range(rng.choice((2, 3, 3, 4))))
    rare = [word() for _ in range(50_000)]
    cumulative = list(accumulate(1/(i + 1) for i in range(len(rare))))
    for i in range(n):
        words = [a if rng.random() < .8 else b for a, b in zip(rng.choices(known, k=55), rng.choices(rare, cum_weights=cumulative, k=55))]
        disease = rare[i % 400]
        yield row(f'{i:07}', [], [user('?'), assistant(' '.join(words) + '.')], meta=dict(category=f'범주{i % 20}', disease=disease, intention=INTENTIONS[i % 11], answer=f'{i:07}'))


def build(n, sizes, folder):
    "Number of answers, and seconds of the processor to build from them and to save; those to make the rows are taken off."
    start = time.process_time(); made = sum(1 for _ in made_up(n)); drawn = time.process_time() - start
    start = time.process_time(); library = Lookup(made_up(n), sizes); built = time.process_time() - start - drawn
    start = time.process_time(); library.save(folder)
    return made, round(built, 1), round(time.process_time() - start, 1)


def ask(folder, rounds):
    "Seconds of the processor to load, and questions a second of it in each round."
    start = time.process_time(); library = load_lookup(folder); loaded = time.process_time() - start
    questions, out = [question_of(r) for r in QaTree(TREE)], []
    for _ in range(rounds + 1):
        start = time.process_time()
        for q in questions: library.find(q, 5)
        out.append(len(questions)/(time.process_time() - start))
    return round(loaded, 2), [round(x, 1) for x in out[1:]], len(questions)                # the first round reads from disk


def main(answers, rounds, out='bench/results/lookup.json'):
    "Measures each size of n-grams and keeps the figures."
    found, load = [], round(os.getloadavg()[0], 1)
    base = alone(lambda: None)[2]
    for sizes in ((1, 2), (2, 3)):
        with tempfile.TemporaryDirectory() as box:
            folder = Path(box)/'library'
            (made, built, saved), _, peak = alone(build, answers, sizes, folder)
            size = sum(p.stat().st_size for p in folder.iterdir())/1e6
            (loaded, speeds, n), _, held = alone(ask, folder, rounds)
        found.append(dict(sizes=sizes, build_s=built, save_s=saved, build_mb=round(peak - base), index_mb=round(size), load_s=loaded, loaded_mb=round(held - base), queries_per_s=statistics.median(speeds), rounds=speeds))
        print(found[-1], flush=True)
    save_json(dict(answers=made, questions=n, found=found, load=load, machine=machine(), versions=versions(('medvlm', 'bm25s', 'numpy', 'scikit-learn')), commit=commit()), out)


if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--answers', type=int, default=100_000); p.add_argument('--rounds', type=int, default=3); p.add_argument('--out', default='bench/results/lookup.json')
    main(**vars(p.parse_args()))
