"Two processes: the same losses and bundle as one, batches without images, a rank that is killed (-9), one watcher; FSDP, and ZeRO where DeepSpeed is installed."
import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]/'bench'))
import scale as lab

SPREAD = dict(fsdp=('FSDP',), zero2=('DEEPSPEED',), zero3=('DEEPSPEED',))


@pytest.fixture(scope='module')
def tmp(tmp_path_factory):
    "A folder with a small base and the runs of one process."
    tmp = tmp_path_factory.mktemp('scale')
    lab.make_base(tmp)
    code, out = lab.launch(tmp, [['one', dict(batch=4)], ['one-mixed', dict(lab.MIXED, batch=4)], ['long', dict(batch=4, steps=12)]])
    assert code == 0, out
    return tmp


def gap(tmp, a, b):
    "Largest difference of the losses of two runs of the same length."
    one, two = lab.losses(tmp, a), lab.losses(tmp, b)
    assert len(one) == len(two)
    return max(abs(x - y) for x, y in zip(one, two))


def test_two_processes_watch_as_one(tmp):
    code, out = lab.launch(tmp, [['watched', dict(watch=2)], ['two-mixed', lab.MIXED]], 'ddp')
    assert code == 0, out
    run = tmp/'runs'/'watched'
    seen = [json.loads((run/f'held-{rank}.json').read_text())['watched'] for rank in (0, 1)]
    assert seen[0] == seen[1] and [r['step'] for r in seen[0]['records']] == [2, 4, 6]
    lines = [json.loads(l) for l in (run/'watch.jsonl').read_text().splitlines()]
    assert [l['step'] for l in lines] == [2, 4, 6], 'each evaluation is written once'
    assert all(l['scores']['length']['value'] < 100 for l in lines), 'the first process decides'
    assert gap(tmp, 'one', 'watched') < 1e-5, 'looking must not change the run'
    assert gap(tmp, 'one-mixed', 'two-mixed') < 1e-5


def test_texts_beside_images_need_the_guard(tmp):
    code, out = lab.launch(tmp, [['bare', dict(lab.MIXED, guard=False)]], 'ddp', lab.HANG)
    assert code != 0, 'without the guard a process without images must not get through'
    assert not (tmp/'runs'/'bare'/'bundle').exists()


def killed(tmp, name, kind, rank=1):
    "Kills a rank of a long run after its first whole checkpoint, starts both again, and gives what they print."
    jobs = [[name, dict(steps=12)]]
    p = lab.start(tmp, jobs, kind)
    marks, limit = tmp/'runs'/name/'checkpoints', time.time() + 120
    while not list(marks.glob('checkpoint-*/complete')) and p.poll() is None and time.time() < limit: time.sleep(.01)
    pid = json.loads((tmp/'runs'/name/f'pid-{rank}.json').read_text())['pid']
    os.kill(pid, signal.SIGKILL)
    try: p.communicate(timeout=60)
    finally: lab.stop(p)
    assert p.returncode != 0, 'the run ended before it could be killed'
    assert not (tmp/'runs'/name/'bundle').exists()
    code, out = lab.launch(tmp, jobs, kind)
    assert code == 0, out
    assert 'going on from checkpoint-' in out
    return out


@pytest.mark.parametrize('kind', SPREAD)
def test_spread(tmp, kind):
    if kind != 'fsdp' and importlib.util.find_spec('deepspeed') is None: pytest.skip('DeepSpeed is not installed')
    code, out = lab.launch(tmp, [[kind, {}], [f'{kind}-mixed', lab.MIXED]], kind)
    assert code == 0, out
    held = [json.loads((tmp/'runs'/kind/f'held-{rank}.json').read_text()) for rank in (0, 1)]
    alone = json.loads((tmp/'runs'/'one'/'held-0.json').read_text())
    assert held[0]['engine'] in SPREAD[kind] and all(h['states'] < .6*alone['states'] for h in held)
    assert kind == 'zero2' or all(h['weights'] < .6*alone['weights'] for h in held)
    assert gap(tmp, 'one', kind) < 1e-4 and gap(tmp, 'one-mixed', f'{kind}-mixed') < 1e-4
    assert lab.bundle_gap(tmp, 'one', kind) < 1e-3
    from medvlm.models import load_bundle
    assert load_bundle(tmp/'runs'/kind/'bundle')[2]['steps'] == 6


@pytest.mark.parametrize('kind', ['ddp', 'fsdp', 'zero2', 'zero3'])
def test_killed_rank_goes_on(tmp, kind):
    if kind.startswith('zero') and importlib.util.find_spec('deepspeed') is None: pytest.skip('DeepSpeed is not installed')
    killed(tmp, f'cut-{kind}', kind)
    assert gap(tmp, 'long', f'cut-{kind}') < 1e-4
    assert lab.bundle_gap(tmp, 'long', f'cut-{kind}') < 1e-3


def test_fallback_is_refused(tmp):
    "FSDP on the CPU, where accelerate trains plain data parallel without a word."
    import subprocess
    from medvlm.scale import config_file
    env = dict(os.environ, OMP_NUM_THREADS='1', ACCELERATE_USE_CPU='true', MEDVLM_DEVICE='cpu', PYTHONPATH=os.pathsep.join(sys.path))
    text = ("import sys; sys.path.insert(0, sys.argv[1]); import scale; scale.shard_on_cpu = lambda: None; from pathlib import Path; scale.work(Path(sys.argv[2]), [['fallen', {}]])")
    (tmp/'fallen.py').write_text(text)
    p = subprocess.run([sys.executable, '-m', 'accelerate.commands.launch', '--config_file', str(config_file('fsdp')), '--num_processes', '1', '--mixed_precision', 'no', '--main_process_port', '0',
                        str(tmp/'fallen.py'), str(Path(lab.__file__).parent), str(tmp)], env=env, capture_output=True, text=True, timeout=120)
    assert p.returncode != 0 and 'fsdp was asked for and accelerate runs' in p.stdout + p.stderr, (p.stdout + p.stderr)[-2000:]
