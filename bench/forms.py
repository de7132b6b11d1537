"""Pages per second of medvlm.forms on one core: `python bench/forms.py [--pages 40] [--rounds 5]`.

For both page widths and all layouts: setting the sheet with typst alone, the whole page with boxes (`draw`), the page drawn and degraded
(severity 3, all effects), and, for comparison, the same texts written onto an empty page with Pillow. Seconds are those of the processor,
so that other work on the machine counts less; pages per second of the clock and the load of the machine stand beside them: other processes
that share its caches slow this one down too, so measure on an idle machine. Writes bench/results/forms.json.
"""
import argparse
import os
import statistics
import time
from pathlib import Path

from PIL import ImageDraw, ImageFont

from medvlm.core import commit, machine, save_json, versions
from medvlm.forms import LAYOUTS, blank_page, degrade, draw, font_pool, options, printed, render, square_code, values

TARGETS = {'draw': 25, 'draw and degrade': 8}


def typst_only(seed, layout, width):
    o = options(seed, layout, font_pool())
    render(layout, printed(values(seed), o) | dict(options=o, qr=square_code(seed)), width / 210, font_pool())


def pillow_page(form, font):
    page = blank_page(form.image.width).copy()
    pen = ImageDraw.Draw(page)
    for b in form.boxes: pen.text(tuple(b.quad[0]), b.text, font=font, fill='black')
    return page


def rate(work, rounds, pages):
    "Pages per second over `rounds`: median and best of the processor, median of the clock."
    cpu, wall = [], []
    for k in range(rounds):
        c, t = time.process_time(), time.perf_counter()
        for i in range(k * pages, (k + 1) * pages): work(i)
        cpu.append(pages / (time.process_time() - c))
        wall.append(pages / (time.perf_counter() - t))
    return dict(cpu=round(statistics.median(cpu), 1), best=round(max(cpu), 1), wall=round(statistics.median(wall), 1))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--pages', type=int, default=40, help='pages per round')
    ap.add_argument('--rounds', type=int, default=5, help='rounds; the median counts')
    a = ap.parse_args()
    load = round(os.getloadavg()[0], 1) if hasattr(os, 'getloadavg') else None
    if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    names, rows = list(LAYOUTS), []
    layout = lambda i: names[i % len(names)]
    for width in (1191, 595):
        forms = [draw(i, layout(i), width=width) for i in range(len(names))]
        font = ImageFont.truetype(font_pool()[1].path, width // 60)
        work = {'typst sheet': lambda i: typst_only(i, layout(i), width),
                'draw': lambda i: draw(i, layout(i), width=width),
                'draw and degrade': lambda i: degrade(draw(i, layout(i), width=width), 3, i),
                'Pillow, texts only': lambda i: pillow_page(forms[i % len(forms)], font)}
        for what, f in work.items():
            rows.append(dict(width=width, what=what, **rate(f, a.rounds, a.pages), target=TARGETS.get(what) if width == 1191 else None))
            r = rows[-1]
            print(f"{width:5} {what:20} {r['cpu']:7.1f} pages/s of one core (best round {r['best']}), {r['wall']:.1f} by the clock" + (f"  (target {r['target']})" if r['target'] else ''))
    out = Path(__file__).parent / 'results' / 'forms.json'
    save_json(dict(pages=a.pages, rounds=a.rounds, load_before=load, rows=rows, machine=machine(), versions=versions(('typst', 'pillow', 'numpy')), commit=commit()), out)
    print(f'load before: {load}; wrote {out.parent.name}/{out.name}')


if __name__ == '__main__': main()
