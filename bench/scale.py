"""Tuning in two processes, mode by mode, on the CPU: `python bench/scale.py [KIND ...]`.

A hybrid plan (vision tower and merger in full, LoRA on the language model) on a model of 0.2 million parameters and drawn lines. For each mode: losses beside those of one process with the same rows in a step,
the difference of the bundles, bytes held by each process, batches of text alone beside batches of images, with and without the guard. Modes of DeepSpeed are left out where the package is missing. Accelerate
ties FSDP to cards; `shard_on_cpu` lifts that condition, all else is accelerate's and torch's own code, with gloo between the processes. Writes bench/results/scale.json.

`python bench/scale.py work FOLDER JOBS` is what the processes run: JOBS is a JSON list of [name, options].
"""
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import torch

LIMIT = 300  # seconds for one launch
HANG = 30  # seconds after which a run without the guard counts as hanging


def shard_on_cpu():
    "Lets accelerate take FSDP on two CPU processes."
    from accelerate import state
    from accelerate.utils import DistributedType
    old = state.AcceleratorState.__init__
    def begin(self, *args, fsdp_plugin=None, **kw):
        old(self, *args, fsdp_plugin=fsdp_plugin, **kw)
        if fsdp_plugin is None or self.distributed_type != DistributedType.MULTI_CPU: return
        self.distributed_type = state.PartialState._shared_state['distributed_type'] = DistributedType.FSDP
        if self._mixed_precision != 'no': fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = fsdp_plugin
    state.AcceleratorState.__init__ = begin


def make_rows(images, texts):
    "`images` drawn lines and `texts` rows without an image."
    from PIL import Image
    from medvlm import core
    from medvlm.data import assistant, row, user
    from medvlm.small import cell_text, draw_line
    rng, fonts = random.Random(0), sorted(str(p) for p in core.korean_font().parent.glob('*.ttf'))
    lines = [cell_text(rng, 4) for _ in range(images)]
    seen = [row(f'line{i}', [Image.fromarray(draw_line(rng, [t], fonts)).convert('RGB')], [user('read', 1), assistant(t)]) for i, t in enumerate(lines)]
    return seen + [row(f'text{i}', [], [user(f'say {"abc"*(i + 1)}'), assistant('abc'*(i + 1))]) for i in range(texts)]


def apart(rows, batch):
    "An order in which one process gets the images and the other the texts."
    images, texts = ([i for i, r in enumerate(rows) if bool(r['images']) == has] for has in (True, False))
    return [i for k in range(0, len(rows)//2, batch) for i in images[k:k + batch] + texts[k:k + batch]]


def held(trainer):
    "Bytes of weights, optimizer states and the engine's own copies in this process, and what runs."
    size = lambda t: (p := t.to_local() if hasattr(t, 'to_local') else getattr(t, 'ds_tensor', t)).numel()*p.element_size()
    inner, model, kind = trainer.optimizer, trainer.accelerator.unwrap_model(trainer.model), trainer.accelerator.distributed_type.name
    while hasattr(inner, 'optimizer'): inner = inner.optimizer
    own = 0
    if kind == 'DEEPSPEED': own = sum(size(p) for p in getattr(trainer.model_wrapped.optimizer, 'fp32_partitioned_groups_flat', None) or [p for g in inner.param_groups for p in g['params']])
    states = sum(size(v) for s in inner.state.values() for v in s.values() if torch.is_tensor(v) and v.numel() > 1)
    return dict(engine=kind, weights=sum(size(p) for p in model.parameters()), states=states, copies=own, groups=[g['name'] for g in inner.param_groups])


def work(folder, jobs):
    "Runs `jobs` one after another in this process."
    if os.environ.get('ACCELERATE_USE_FSDP') == 'true': shard_on_cpu()
    from medvlm import core, train
    from medvlm.models import ImagePolicy, Part, Tuning
    torch.set_num_threads(1)
    rank, finish, make_args = int(os.environ.get('RANK', 0)), train.finish, train.trainer_args
    def note(trainer, recipe, run, watch, *rest):
        core.save_json(dict(held(trainer), watched=watch and watch.state), run.path(f'held-{rank}.json'))
        finish(trainer, recipe, run, watch, *rest)
    def spread_all(*args):  # small tensors too
        out = make_args(*args)
        if out.deepspeed_plugin is not None and out.deepspeed_plugin.zero_stage == 3: out.deepspeed_plugin.deepspeed_config['zero_optimization']['stage3_param_persistence_threshold'] = 0
        return out
    tuning = Tuning(Part('full', 1e-3), Part('full', 2e-3), Part('lora', 1e-3, dropout=0.))
    for name, options in jobs:
        rows, guard, split, watch = make_rows(options.pop('images', 12), options.pop('texts', 0)), options.pop('guard', True), options.pop('split', 0), options.pop('watch', 0)
        base = dict(name=name, base=str(folder/'tiny'), policy=ImagePolicy(784, 64*784), tuning=tuning, batch=2, accumulate=1, steps=6, warmup=0., weight_decay=0., save_every=3, checkpointing=False,
                    dtype='fp32', attention='eager', new_tokens=4)
        recipe, watching = train.Recipe(**{**base, **options}), None
        if watch: recipe, watching = replace(recipe, watch=train.Watch(every=watch, rows=4, score='length')), (rows[:4], partial(length_score, rank))
        run = core.Run(name, folder/'runs')
        core.save_json(dict(pid=os.getpid()), run.path(f'pid-{rank}.json'))
        sampler = lambda lengths, batch, seed, fill=0, pool=32: InOrder(apart(rows, split))
        with mock.patch.multiple(train, finish=note, trainer_args=spread_all, Collator=partial(train.Collator, guard=guard), length_sampler=sampler if split else train.length_sampler):
            train.fit(recipe, rows, run, watching=watching, say=lambda line: print(line, flush=True) if 'going on' in line or 'step ' in line else None)
    if torch.distributed.is_initialized(): torch.distributed.destroy_process_group()


class InOrder(torch.utils.data.Sampler):
    "Rows in one given order, every epoch."
    def __init__(self, order): self.order = order
    def __len__(self): return len(self.order)
    def __iter__(self): return iter(self.order)
    def set_epoch(self, epoch): pass


def length_score(rank, rows, answers):
    "Characters answered, and another number on the second process: only the first one's may count."
    from medvlm.stats import Score
    return dict(length=Score(sum(len(a.text) for a in answers) + 100.*rank, None, None, len(rows), 'sum'))


def start(folder, jobs, kind='', processes=2):
    "Starts `jobs` under the shipped config `kind` in a process of its own; '' is one process without a launcher."
    from medvlm.scale import MODES, config_file
    line = [sys.executable, __file__, 'work', str(folder), json.dumps(jobs)]
    env = dict(os.environ, OMP_NUM_THREADS='1', DS_ACCELERATOR='cpu', MEDVLM_DEVICE='cpu', PYTHONPATH=os.pathsep.join(sys.path))
    if kind:
        line[:1] = [sys.executable, '-m', 'accelerate.commands.launch', '--config_file', str(config_file(kind)), '--num_processes', str(processes), '--main_process_port', '0', '--mixed_precision',
                    'bf16' if any(o.get('dtype') == 'bf16' for _, o in jobs) else 'no']
        if MODES[kind].package != 'deepspeed': env['ACCELERATE_USE_CPU'] = 'true'
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def stop(process):
    "Ends a launch with all its processes."
    import signal
    try: os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError: pass
    process.wait()


def launch(folder, jobs, kind='', limit=LIMIT):
    "Runs `jobs`; gives (return code or None after `limit` seconds, what was printed)."
    p = start(folder, jobs, kind)
    try: out, _ = p.communicate(timeout=limit); return p.returncode, out
    except subprocess.TimeoutExpired: stop(p); return None, p.stdout.read()


def make_base(folder):
    "Writes the small base with random weights."
    from medvlm.small import save_small, small_vlm
    save_small(*small_vlm(hidden=48, layers=1, vision_layers=1, heads=2), Path(folder)/'tiny', {})


def losses(folder, name):
    "Losses of a finished run."
    return [l['loss'] for l in json.loads((Path(folder)/'runs'/name/'loss.json').read_text())]


def bundle_gap(folder, a, b):
    "Largest difference of the weights of two bundles that hold the same tensors."
    from safetensors.torch import load_file
    one, two = (load_file(Path(folder)/'runs'/n/'bundle'/'adapter_model.safetensors') for n in (a, b))
    if one.keys() != two.keys(): raise ValueError(f'{a} and {b} hold other tensors: {sorted(one.keys() ^ two.keys())[:3]}')
    return max(float((one[k].float() - two[k].float()).abs().max()) for k in one)


MIXED = dict(images=8, texts=8, split=2)  # rows of a process in a step

def measure(folder, kind):
    "What a mode did, beside one process."
    name = lambda what: f'{kind}-{what}'
    code, out = launch(folder, [[name('plain'), {}], [name('mixed'), MIXED], [name('again'), dict(checkpointing=True)]], kind)
    if code: raise RuntimeError(f'{kind}: return code {code}\n{out[-3000:]}')
    bare, said = launch(folder, [[name('bare'), dict(MIXED, guard=False)]], kind, HANG)
    low, why = launch(folder, [[name('bf16'), dict(dtype='bf16')]], kind)
    parts = [json.loads((Path(folder)/'runs'/name('plain')/f'held-{r}.json').read_text()) for r in (0, 1)]
    gap = lambda a, b: max(abs(x - y) for x, y in zip(losses(folder, a), losses(folder, b)))
    return dict(engine=parts[0]['engine'], losses=losses(folder, name('plain')), loss_gap=gap('plain', name('plain')), mixed_gap=gap('mixed', name('mixed')), checkpointing_gap=gap('plain', name('again')),
                bundle_gap=bundle_gap(folder, 'plain', name('plain')), without_guard='hangs' if bare is None else 'stops with an error' if bare else 'runs',
                bf16_gap=gap('plain', name('bf16')) if not low else why[-500:], held=[{k: p[k] for k in ('weights', 'states', 'copies')} for p in parts])


def main(kinds):
    "Measures `kinds` and writes the figures."
    from medvlm import core
    from medvlm.scale import MODES
    folder = Path(tempfile.mkdtemp())
    make_base(folder)
    code, out = launch(folder, [['plain', dict(batch=4)], ['mixed', dict(MIXED, batch=4)]])
    if code: raise RuntimeError(out[-3000:])
    path = Path(__file__).parent/'results'/'scale.json'
    done = json.loads(path.read_text())['modes'] if path.exists() else {}
    for kind in kinds or MODES:
        if (package := MODES[kind].package) and find_spec(package) is None: print(kind, 'left out:', package, 'is missing'); continue
        done[kind] = measure(folder, kind)
        print(kind, {k: v for k, v in done[kind].items() if k != 'losses'}, flush=True)
        core.save_json(dict(one=dict(losses=losses(folder, 'plain')), modes=done, machine=core.machine(), versions=core.versions()), path)


if __name__ == '__main__':
    if sys.argv[1:2] == ['work']: work(Path(sys.argv[2]), json.loads(sys.argv[3]))
    else: main(sys.argv[1:])
