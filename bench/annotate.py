"""The annotation room under load and under fire: `python bench/annotate.py [--rows 10800] [--kills 200]` writes results/annotate.json.

Speed: descriptions of 10,800 pictures of 1024 × 1024 (PNG, each another file) at 64 requests under way, from a server on this machine that takes a second for each answer; the clock, the processor time and the memory of the asking process alone.
Chaos: 2,000 requests at a server that spoils one answer in five; the asking process is killed (SIGKILL) 200 times at random moments, and once more with two processes at the same books. In the end every row has its answer, no request has two, and what the server answered beyond that is no more than what was under way when a process died
or what it had spoilt itself.
"""
import argparse
import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

from medvlm import core
from medvlm.annotate import Pace, annotate
from medvlm.data import assistant, row, user
from medvlm.ledger import Ledger
from medvlm.llm import Asking, Price, Provider, load_prompt
from medvlm.phantoms import SKIN, skin_patch
from medvlm.samples import png_bytes
from medvlm.standin import served

HERE = Path(__file__).resolve().parent
FAULTS = 'limit_bare=.03,error=.04,overload=.03,cut=.03,broken=.03,html=.02,double=.02'


def pictures(folder, n, side, kinds=12):
    "`n` files of `kinds` drawn faces, each with a number in it that no viewer shows, so that every file is another one."
    Path(folder).mkdir(parents=True, exist_ok=True)
    drawn = [(k, png_bytes(skin_patch(k, i, side))) for i in range(kinds//len(SKIN)) for k in SKIN]
    for i in range(n):
        label, data = drawn[i % len(drawn)]; part = b'bKGD' + struct.pack('>HI', 0, i)
        (Path(folder)/f'{label}_{i:05}.png').write_bytes(data[:-12] + struct.pack('>I', 6) + part + struct.pack('>I', zlib.crc32(part)) + data[-12:])


def rows_in(folder): return [row(p.stem, [str(p)], [user('?', 1), assistant('-')], label=p.stem.split('_')[0]) for p in sorted(Path(folder).glob('*.png'))]


def server(folder, **options):
    "The stand-in in a process of its own, its address and its log."
    log = Path(folder)/'log.jsonl'
    words = [w for k, v in dict(port=0, log=log, **options).items() for w in (f'--{k}', str(v))]
    process = subprocess.Popen([sys.executable, '-m', 'medvlm.standin', *words], stdout=subprocess.PIPE, text=True)
    return process, re.search(r'http://\S+', process.stdout.readline())[0], log


def asking_at(url):
    os.environ['MEDVLM_STANDIN_KEY'] = 'test'
    return Asking(load_prompt('skin_ko'), 'standin', Provider(url + '/v1', 'MEDVLM_STANDIN_KEY'), price=Price(.15, .6, 'tiles', (2833, 5667)))


def work(a):
    "One asking process: `--work BOOKS URL PICTURES`; prints what it took."
    books, url, folder = a.work
    pace = Pace(at_once=a.at_once, back_off=.05 if a.kills else 1., tries=50)
    with Ledger(books) as led: told = annotate(rows_in(folder), led, asking_at(url), pace=pace)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps(dict(told, cpu=used.ru_utime + used.ru_stime, memory_mb=used.ru_maxrss/1024)))


def asker(a, books, url, folder, *more): return subprocess.Popen([sys.executable, __file__, '--at-once', str(a.at_once), '--kills', str(a.kills), *more, '--work', str(books), url, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def speed(a, folder):
    pictures(f'{folder}/large', a.rows, 1024)
    size = sum(p.stat().st_size for p in Path(f'{folder}/large').iterdir())/a.rows
    process, url, log = server(folder, latency=1)
    try:
        start = time.time(); a.kills = 0; one = asker(a, f'{folder}/speed.db', url, f'{folder}/large'); told = json.loads(one.communicate()[0]); seconds = time.time() - start
    finally: process.terminate(); process.wait()
    counts = served(log)
    return dict(rows=a.rows, at_once=a.at_once, picture_mb=size/1e6, seconds=seconds, cpu_cores=told['cpu']/seconds, memory_mb=told['memory_mb'], done=told['done'], requests=counts['requests'])


def chaos(a, folder, askers, seed):
    "Kill the askers at random moments until they have been killed often enough, then let one finish."
    rng, books, small = random.Random(seed), f'{folder}/chaos{askers}.db', f'{folder}/small'
    place = Path(folder)/f'server{askers}'; place.mkdir(exist_ok=True)
    process, url, log = server(place, latency='.1-.4', faults=FAULTS, seed=seed)
    killed, a.at_once, start = 0, 8, time.time()
    try:
        alive = [asker(a, books, url, small) for _ in range(askers)]
        while killed < a.kills:
            time.sleep(rng.uniform(.8, 2.2))
            i = rng.randrange(len(alive))
            if alive[i].poll() is None: alive[i].send_signal(signal.SIGKILL); killed += 1
            alive[i].wait(); alive[i].stdout.close(); alive[i] = asker(a, books, url, small)
        for p in alive: p.wait()
        with Ledger(books) as led: annotate(rows_in(small), led, asking_at(url), pace=Pace(at_once=8, back_off=.05, tries=50), show=False)
        seconds, counts = time.time() - start, served(log, wait=3)
    finally: process.terminate(); process.wait()
    with Ledger(books) as led:
        jobs, ends = led.jobs(), Counter(s for s, in led.db.execute('select status from attempts'))
        twice, = led.db.execute("select count(*) from (select key from attempts where status = 'done' group by key having count(*) > 1)").fetchone()
    return dict(askers=askers, rows=len(jobs), killed=killed, done=sum(j['state'] == 'done' for j in jobs), answered_twice=twice, requests=counts['requests'], whole_answers=counts['answered'], lost_under_way=ends['lost'], spoilt=sum(counts['fault'].values()),
                unclear=ends['unclear'], beyond=max(0, counts['answered'] - len(jobs) - ends['lost'] - ends['unclear']), seconds=seconds)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rows', type=int, default=10_800)
    p.add_argument('--at-once', type=int, default=64)
    p.add_argument('--requests', type=int, default=2000, help='of the chaos')
    p.add_argument('--kills', type=int, default=200)
    p.add_argument('--work', nargs=3, help=argparse.SUPPRESS)
    p.add_argument('--out', default=HERE/'results'/'annotate.json')
    a = p.parse_args()
    if a.work: return work(a)
    out, kills = {}, a.kills
    with tempfile.TemporaryDirectory() as folder:
        if a.rows: out['speed'] = speed(a, folder); print(out['speed'], flush=True)
        if kills:
            a.kills = kills; pictures(f'{folder}/small', a.requests, 144)
            for askers in (1, 2): out[f'chaos {askers}'] = chaos(a, folder, askers, askers); print(out[f'chaos {askers}'], flush=True)
    core.save_json(dict(out, versions=core.versions(), machine=core.machine(), commit=core.commit()), a.out)


if __name__ == '__main__': main()
