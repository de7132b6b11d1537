"""The whole demo as a user runs it: `python bench/demo.py [ROOT]`, where ROOT takes the run folder `demo` (a temporary one without it).

Writes bench/results/demo.json: scores of base and tuned model with their paired comparison, seconds from start to end, and the peak of memory (all processes together, shared pages counted once; read twice a second).
`python bench/rx.py ROOT/demo/bundle ROWS.json IMAGES` scores its bundle on real pages afterwards.
"""
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from medvlm.core import commit, load_json, machine, save_json, versions


def memory(root):
    "Megabytes held by process `root` and all below it."
    parent, held = {}, 0
    for p in Path('/proc').glob('[0-9]*'):
        try: parent[int(p.name)] = int((p/'stat').read_text().rsplit(')', 1)[1].split()[1])
        except OSError: pass
    for pid in parent:
        up = pid
        while up in parent and up != root: up = parent[up]
        if up != root: continue
        try: held += next(int(l.split()[1]) for l in (Path('/proc')/str(pid)/'smaps_rollup').read_text().splitlines() if l.startswith('Pss:'))
        except (OSError, StopIteration): pass
    return held/1024


def main(root=None, out='bench/results/demo.json'):
    "Runs the demo, prints what it prints, and keeps the figures."
    with tempfile.TemporaryDirectory() as tmp:
        root = root or tmp
        if (Path(root)/'demo').exists(): raise SystemExit(f'{root}/demo is there already, and a finished run is not run again; give another folder')
        start, peak = time.perf_counter(), [0.]
        work = subprocess.Popen([sys.executable, '-c', 'from medvlm.cli import main; main()', 'demo', '--root', root])
        def watch():
            while work.poll() is None: peak[0] = max(peak[0], memory(work.pid)); time.sleep(.5)
        watcher = threading.Thread(target=watch); watcher.start()
        code = work.wait(); watcher.join()
        if code: raise SystemExit(f'the demo ended with {code}')
        seconds, run = time.perf_counter() - start, Path(root)/'demo'
        result = dict(seconds=round(seconds), peak_mb=round(peak[0]), scores=load_json(run/'scores.json'), pairs=load_json(run/'pairs.json'), loss=load_json(run/'loss.json'))
        save_json(result | dict(versions=versions(), machine=machine(), commit=commit()), out)
        print(f'{seconds:.0f} s, at most {peak[0]:,.0f} MB')


if __name__ == '__main__': main(*sys.argv[1:])
