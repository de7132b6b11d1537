"""Tuning by the engine and by plain loops, in turn: `python bench/engine.py [ROUNDS]`.

A plain loop takes rows in any order, opens and resizes each image when it is needed, pads to the longest row of the batch and computes all logits; optimizer, groups, rates, weights and number format are the engine's.
`plain` leaves the model as transformers loads it (attention 'sdpa', patches by a convolution); `tuned plain` has the attention that is fastest of the library's own on a processor ('eager') and patches by a product.
The engine is `train.make_trainer`: coded rows, patches from one file, batches of similar length, logits at the answers, attention 'quick', fused AdamW. Two jobs: the strips of 40 drawn forms under the small document
recipe, where images are tiny and the model's own arithmetic is nearly all of a step, and 96 drawn chest films of 1,024 × 1,024 pixels with their reports under the small lung recipe, where each image must be decoded
and resized. The first ten steps are not counted. Before that, losses on the same batches are compared in float32. Writes bench/results/engine.json.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from transformers import TrainerCallback

from medvlm import core
from medvlm.phantoms import CHEST, chest_phantom, chest_report
from medvlm.batches import Coder, Collator, answer_mask, chat_text, encode_rows
from medvlm.data import assistant, open_image, row, user
from medvlm.losses import answer_loss
from medvlm.models import ImagePolicy, load, param_groups, prepare
from medvlm.cuttings import font_split
from medvlm.qwen_ocr import TRAIN_LAYOUTS, in_processes, page_jobs, train_job
from medvlm.samples import png_bytes
from medvlm.train import RECIPES, make_trainer
from medvlm.watch import Watch

JOBS = dict(strips=replace(RECIPES['ocr_7b_small'], steps=60, save_every=100, cache=True), films=replace(RECIPES['lung_3b_small'], policy=ImagePolicy(28*28, 96*28*28), steps=30, save_every=100, watch=Watch()))


def films(n=96, side=1024):
    "Drawn chest films with their reports."
    made = [(kind, *chest_phantom(kind, i, size=side)) for i in range(n) for kind in [list(CHEST)[i % len(CHEST)]]]
    return [row(f'film{i}', [png_bytes(im)], [user('Which class?', 1), assistant(chest_report(finding, i))], label=kind) for i, (kind, im, finding) in enumerate(made)]


class Clock(TrainerCallback):
    "Notes the time after each step."
    def __init__(self): self.times = []
    def on_step_end(self, args, state, control, **kw): self.times.append((time.process_time(), time.perf_counter()))


def plain_batch(processor, coder, rows):
    "One batch as most tuning scripts make it."
    batch = processor(text=[chat_text(processor, r['messages']) for r in rows], images=[open_image(im) for r in rows for im in r['images']] or None, return_tensors='pt', padding=True, padding_side='right')
    mask = torch.tensor([answer_mask(ids, coder.header, coder.end) for ids in batch['input_ids'].tolist()]) & batch['attention_mask'].bool()
    return dict(batch, labels=batch['input_ids'].masked_fill(~mask, -100))


def prepared(recipe, attention='eager', convolution=False):
    "Model, processor and coder of `recipe`."
    core.seed_all(recipe.seed)
    model, processor = load(recipe.base, recipe.policy)
    model.set_attn_implementation(attention)
    if convolution: model.model.visual.patch_embed.proj.__class__ = torch.nn.Conv3d
    return prepare(model, recipe.tuning).train(), processor, Coder(processor, recipe.policy, recipe.max_tokens)


def same_losses(recipe, rows, batches=3):
    "Largest difference between the losses of both ways on the same rows, in float32."
    model, processor, coder = prepared(recipe)
    model, out = model.eval(), []
    for k in range(batches):
        part = rows[k*16:(k + 1)*16]
        with torch.no_grad(): out.append(abs(float(model(**plain_batch(processor, coder, part)).loss) - float(answer_loss(model, Collator(coder)(list(encode_rows(part, coder))))[0])))
    return max(out)


def plain(recipe, rows, **how):
    "Rows a second of a plain loop, by the clock and by the processor."
    model, processor, coder = prepared(recipe, **how)
    opt = torch.optim.AdamW(param_groups(model, recipe.tuning, recipe.weight_decay))
    rng = np.random.default_rng(recipe.seed)
    order, times = [i for _ in range(1 + recipe.steps*recipe.batch//len(rows)) for i in rng.permutation(len(rows)).tolist()], []
    for k in range(recipe.steps):
        batch = plain_batch(processor, coder, [rows[i] for i in order[k*recipe.batch:(k + 1)*recipe.batch]])
        with torch.autocast('cpu', torch.bfloat16, enabled=core.cpu_bf16()): loss = model(**batch).loss
        loss.backward(); torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip); opt.step(); opt.zero_grad(set_to_none=True)
        times.append((time.process_time(), time.perf_counter()))
    return speed(recipe, times)


def engine(recipe, rows):
    "Rows a second of the engine."
    clock = Clock()
    with tempfile.TemporaryDirectory() as tmp:
        trainer, _ = make_trainer(recipe, rows, core.Run('engine', tmp), say=lambda line: None)
        trainer.add_callback(clock)
        trainer.train()
    return speed(recipe, clock.times)


def speed(recipe, times):
    "Rows a second after the tenth step."
    cpu, wall = np.diff(np.array(times[10:]), axis=0).mean(0)
    return dict(rows_per_second=round(recipe.batch/float(wall), 1), processor_seconds_a_step=round(float(cpu), 3))


def main(rounds=3):
    "Runs both ways in turn on both jobs, prints and keeps the figures."
    sets, out = dict(strips=sum(in_processes(train_job, page_jobs(40, 10_000, TRAIN_LAYOUTS, font_split()[0])), []), films=films()), {}
    for job, recipe in JOBS.items():
        apart, ways = same_losses(recipe, sets[job]), {'plain': partial(plain, attention='sdpa', convolution=True), 'tuned plain': plain, 'engine': engine}
        found = {name: [] for name in ways}
        print(f'{job}: losses on the same batches differ by at most {apart:.1e}', flush=True)
        for _ in range(int(rounds)):
            for name, way in ways.items():
                found[name].append(way(recipe, sets[job])); print(f'{job:7}{name:12}', found[name][-1], flush=True)
        ratios = {name: [round(b['rows_per_second']/a['rows_per_second'], 2) for a, b in zip(found[name], found['engine'])] for name in ('plain', 'tuned plain')}
        for name, r in ratios.items(): print(f'{job}: engine to {name} loop, median {statistics.median(r):.2f} of {r}', flush=True)
        out[job] = dict(rows=len(sets[job]), losses_apart=apart, runs=found, ratios=ratios)
    core.save_json(dict(out, versions=core.versions(), machine=core.machine(), commit=core.commit()), 'bench/results/engine.json')


if __name__ == '__main__': main(*sys.argv[1:])
