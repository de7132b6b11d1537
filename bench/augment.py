"""Augmented films per second of one core: `python bench/augment.py [--films 64] [--rounds 5]` writes results/augment.json.

The whole set for X-rays on grey films of 450 × 450 that are in memory, in 8 and 16 bits, beside the same operations with the same chances as a plain loop of Pillow and NumPy does them, one after the other; and what the balancing sampler
takes of the time in which its views are opened from PNG files. One thread; rounds in turn; medians.
"""
import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from medvlm import core
from medvlm.augment import SETS, applied, draw_values, exposures, open_view
from medvlm.data import assistant, row, user
from medvlm.phantoms import CHEST, chest_phantom


def plain(image, values, rng):
    "The operations of `values` one by one, as most scripts write them."
    w, h = image.size
    if 'rotation' in values: image = image.rotate(values['rotation'], Image.Resampling.BILINEAR)
    if 'shift_x' in values or 'shift_y' in values: image = ImageChops.offset(image, round(w*values.get('shift_x', 0)), round(h*values.get('shift_y', 0)))
    if 'scale' in values:
        size = round(w*(1 + values['scale'])), round(h*(1 + values['scale']))
        image = ImageOps.pad(image.resize(size, Image.Resampling.BILINEAR), (w, h)) if size[0] < w else ImageOps.fit(image.resize(size, Image.Resampling.BILINEAR), (w, h))
    if 'crop' in values: image = image.crop((0, 0, round(w*(1 - values['crop'])), round(h*(1 - values['crop'])))).resize((w, h), Image.Resampling.BILINEAR)
    for name, enhance in (('brightness', ImageEnhance.Brightness), ('contrast', ImageEnhance.Contrast), ('sharpness', ImageEnhance.Sharpness)):
        if name in values: image = enhance(image).enhance(1 + values[name])
    if 'blur' in values: image = image.filter(ImageFilter.GaussianBlur(values['blur']))
    if 'equalise' in values: image = ImageOps.equalize(image)
    if 'autocontrast' in values: image = ImageOps.autocontrast(image)
    if 'noise' in values: image = Image.fromarray((np.asarray(image) + np.random.default_rng(rng.getrandbits(32)).normal(0, values['noise'], (h, w))).clip(0, 255).astype(np.uint8))
    return image


def rate(work, films):
    "Films per second."
    start = time.perf_counter()
    for i, film in enumerate(films): work(film, random.Random(i))
    return len(films)/(time.perf_counter() - start)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--films', type=int, default=64)
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--out', default=Path(__file__).resolve().parent/'results'/'augment.json')
    a = p.parse_args()
    torch.set_num_threads(1)
    films = [chest_phantom(list(CHEST)[i % 8], i, size=450)[0] for i in range(a.films)]
    deep = [Image.fromarray(np.asarray(f).astype(np.uint16)*257) for f in films]
    ways = {'whole set, 8 bits': (films, lambda f, rng: applied(f, 'xray', draw_values(SETS['xray'], rng), rng)),
            'whole set, 16 bits': (deep, lambda f, rng: applied(f, 'xray', draw_values(SETS['xray'], rng), rng)),
            'plain loop of Pillow and NumPy, 8 bits': (films, lambda f, rng: plain(f, draw_values(SETS['xray'], rng), rng))}
    rounds = {k: [] for k in ways}
    for _ in range(a.rounds):
        for k, (some, work) in ways.items(): rounds[k].append(rate(work, some))
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for i, film in enumerate(films):
            film.save(path := f'{folder}/{i}.png')
            rows.append(row(f'film-{i}', [path], [user('Class?', 1), assistant('Class: x')], label=list(CHEST)[i % 8 if i < 16 else 0]))
        start = time.perf_counter(); shown = exposures(rows, 20*len(rows)); sampler = (time.perf_counter() - start)/len(shown)
        start = time.perf_counter()
        for r in shown[:len(rows)]: open_view(r['images'][0])
        opened = (time.perf_counter() - start)/len(rows)
    rates = {k: statistics.median(v) for k, v in rounds.items()}
    result = dict(rates=rates, rounds=rounds, sampler=sampler/(sampler + opened), seconds=dict(sampler=sampler, view=opened), films=a.films, versions=core.versions(), machine=core.machine(), commit=core.commit())
    for k, v in rates.items(): print(f'{k:40} {v:7.0f} films/s of one core')
    print(f"sampler {result['sampler']:.3%} of the time; {1e6*sampler:.0f} µs a row, {1e3*opened:.1f} ms to open its view")
    core.save_json(result, a.out)


if __name__ == '__main__': main()
