"""How long it takes to draw and ask a training set: `python bench/rows.py [--rows 10000] [--workers 2]`.

Writes rows with questions in three languages about pages of 1191 × 1684 pixels, half of them damaged, into a temporary folder. Memory is that of this process and all it started, pages they share counted in each. Writes bench/results/rows.json.
"""
import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import psutil

from medvlm.core import commit, machine, save_json, versions
from medvlm.questions import write_asked


def watch(peak, stop):
    "Keeps the largest memory of this process and its children, and their number."
    me = psutil.Process()
    while not stop.wait(.5):
        held = []
        for p in [me, *me.children(recursive=True)]:
            try: held.append(p.memory_info().rss)
            except psutil.NoSuchProcess: pass
        if sum(held) > peak['bytes']: peak.update(bytes=sum(held), processes=len(held))


def main(rows, workers, out):
    "Writes the set and keeps what it took."
    peak, stop = dict(bytes=0, processes=0), threading.Event()
    threading.Thread(target=watch, args=(peak, stop), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        written = json.loads(write_asked(Path(folder)/'set', rows, workers=workers).read_text())
        seconds, size = time.perf_counter() - start, sum(p.stat().st_size for p in Path(folder).rglob('*.jpg'))
    stop.set()
    result = dict(rows=len(written), pages=len({r['group'] for r in written}), seconds=round(seconds, 1), peak_mb=round(peak['bytes']/1e6), processes=peak['processes'], workers=workers, gigabytes_written=round(size/1e9, 2),
                  load=psutil.getloadavg()[0], machine=machine(), versions=versions(), commit=commit())
    print({k: v for k, v in result.items() if k not in ('machine', 'versions')})
    save_json(result, out)


if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--rows', type=int, default=10_000); p.add_argument('--workers', type=int, default=2); p.add_argument('--out', default='bench/results/rows.json')
    main(**vars(p.parse_args()))
