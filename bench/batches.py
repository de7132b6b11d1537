"""Tuning with batches in any order and with batches of similar length, in turn: `python bench/batches.py [ROUNDS]`.

The small recipe on the strips of 40 drawn forms, 70 steps a run, the first ten not counted. Seconds are those of the processor (all threads) and of the clock; the machine's speed varies, so only runs
beside each other compare. `padding` is the number of tokens computed for each token of a row. Writes bench/results/batches.json.
"""
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from unittest import mock

import numpy as np
from transformers import TrainerCallback

from medvlm import batches, core, train
from medvlm.cuttings import font_split
from medvlm.qwen_ocr import TRAIN_LAYOUTS, in_processes, page_jobs, train_job


class Clock(TrainerCallback):
    "Notes the times after each step."
    def __init__(self): self.times = []
    def on_step_end(self, args, state, control, **kw): self.times.append((time.process_time(), time.perf_counter()))


def any_order(lengths, batch, seed, pool=0):
    "Stands for `length_order`: the rows in an order by chance."
    return np.random.default_rng(seed).permutation(len(lengths)).tolist()


def run(rows, order):
    "Processor and clock seconds of a step, and tokens computed for each token of a row."
    clock, probe, recipe, padding = Clock(), train.first_step_probe, replace(train.RECIPES['ocr_7b_small'], steps=70), []
    def watched(lengths, batch, seed, pool=32):
        out = order(lengths, batch, seed, pool)
        padding.append(sum(batch*max(lengths[i] for i in out[k:k + batch]) for k in range(0, len(out) - batch + 1, batch))/sum(lengths))
        return out
    class Both(type(probe(recipe.tuning))):
        "The probe, with a clock."
        def on_step_end(self, *args, **kw): super().on_step_end(*args, **kw); clock.on_step_end(*args, **kw)
    with tempfile.TemporaryDirectory() as tmp, mock.patch.object(batches, 'length_order', watched), mock.patch.object(train, 'first_step_probe', lambda tuning: Both()):
        train.fit(recipe, rows, core.Run('batches', tmp), say=lambda line: None)
    cpu, wall = np.diff(np.array(clock.times[10:]), axis=0).mean(0)
    return dict(cpu=round(float(cpu), 3), wall=round(float(wall), 3), padding=round(padding[0], 2))


def main(rounds=3):
    "Runs both ways in turn, prints and keeps the figures."
    rows = sum(in_processes(train_job, page_jobs(40, 10_000, TRAIN_LAYOUTS, font_split()[0])), [])
    ways = {'any order': any_order, 'similar length': batches.length_order}
    found = {name: [] for name in ways}
    for _ in range(int(rounds)):
        for name, order in ways.items():
            found[name].append(run(rows, order))
            print(name, found[name][-1], flush=True)
    ratio = statistics.median(b['cpu']/a['cpu'] for a, b in zip(*found.values()))
    print(f'processor seconds, similar length to any order: median {ratio:.2f} of {rounds} pairs')
    core.save_json(dict(runs=found, ratio=round(ratio, 3), versions=core.versions(), machine=core.machine(), commit=core.commit()), 'bench/results/batches.json')


if __name__ == '__main__': main(*sys.argv[1:])
