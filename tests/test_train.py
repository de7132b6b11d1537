"A tuning run that is killed (-9) goes on from its last whole checkpoint and ends with the weights of a run that was never stopped."
import signal, subprocess, sys, time
from pathlib import Path
import pytest

SCRIPT = '''
import sys
from pathlib import Path
from PIL import Image
import random
from medvlm import core
from medvlm.data import assistant, row, user
from medvlm.models import ImagePolicy, Part, Tuning
from medvlm.small import cell_text, draw_line
from medvlm.train import Recipe, fit
tmp, name = Path(sys.argv[1]), sys.argv[2]
rng, fonts = random.Random(0), sorted(str(p) for p in core.korean_font().parent.glob('*.ttf'))
texts = [cell_text(rng, 4) for _ in range(12)]
rows = [row(f'line{i}', [Image.fromarray(draw_line(rng, [t], fonts)).convert('RGB')], [user('read', 1), assistant(t)]) for i, t in enumerate(texts)]
tuning = Tuning(Part('full', 1e-3), Part('full', 2e-3), Part('lora', 1e-3))
recipe = Recipe(name=name, base=str(tmp/'tiny'), policy=ImagePolicy(784, 64*784), tuning=tuning, batch=4, accumulate=1, steps=60, save_every=10, checkpointing=False)
fit(recipe, rows, core.Run(name, tmp/'runs'))
'''

def start(tmp, name):
    "Starts a run in a process of its own."
    return subprocess.Popen([sys.executable, '-c', SCRIPT, str(tmp), name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

@pytest.fixture(scope='module')
def tmp(tmp_path_factory):
    "A folder with a tiny base."
    from medvlm import core
    from medvlm.small import pretrain
    tmp = tmp_path_factory.mktemp('train')
    pretrain(2, tmp/'tiny', batch=2, fonts=sorted(str(p) for p in core.korean_font().parent.glob('*.ttf')), hidden=48, layers=2, vision_layers=2, heads=2)
    return tmp

def weights(tmp, name):
    "The trained weights of a finished run."
    from safetensors.torch import load_file
    return load_file(tmp/'runs'/name/'bundle'/'adapter_model.safetensors')

def test_killed_run_goes_on(tmp):
    from medvlm import core
    whole = start(tmp, 'whole')
    assert whole.wait(300) == 0, whole.stdout.read()
    killed = start(tmp, 'killed')
    marks, limit = tmp/'runs'/'killed'/'checkpoints', time.time() + 240
    while not list(marks.glob('checkpoint-*/complete')) and killed.poll() is None and time.time() < limit: time.sleep(.02)
    killed.send_signal(signal.SIGKILL); killed.wait()
    assert killed.returncode == -9, 'the run ended before it could be killed'
    assert not (tmp/'runs'/'killed'/'bundle').exists()
    again = start(tmp, 'killed')
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 0, out
    assert 'going on from checkpoint-' in out
    a, b = weights(tmp, 'whole'), weights(tmp, 'killed')
    assert a.keys() == b.keys() and max(float((a[k] - b[k]).abs().max()) for k in a) == 0
    curves = [core.load_json(tmp/'runs'/name/'loss.json') for name in ('whole', 'killed')]
    assert curves[0] == curves[1]

def test_half_written_checkpoint_is_passed_over(tmp):
    from medvlm.callbacks import last_checkpoint
    folder = tmp/'marks'
    for step, whole in ((10, True), (20, True), (30, False)):
        (folder/f'checkpoint-{step}').mkdir(parents=True)
        if whole: (folder/f'checkpoint-{step}'/'complete').touch()
    assert Path(last_checkpoint(folder)).name == 'checkpoint-20'
    assert last_checkpoint(tmp/'nothing') is None

def test_trackers_and_pruning(tmp):
    "A tracked run leaves TensorBoard's files, and of its checkpoints the last two, each whole."
    from medvlm import core
    from medvlm.callbacks import first_step_probe
    from medvlm.data import assistant, row, user
    from medvlm.models import ImagePolicy, Part, Tuning
    from medvlm.train import Recipe, finish, make_trainer
    tuning = Tuning(Part(), Part(), Part('lora', 1e-3))
    recipe = Recipe(name='tracked', base=str(tmp/'tiny'), policy=ImagePolicy(784, 64*784), tuning=tuning, batch=2, accumulate=1, steps=8, save_every=2, checkpointing=False, report_to='tensorboard')
    rows = [row(f't{i}', [], [user(f'say {i}'), assistant(str(i))]) for i in range(6)]
    run = core.Run('tracked', tmp/'runs')
    trainer, _ = make_trainer(recipe, rows, run, say=lambda line: None)
    seen = []
    class Watch(type(first_step_probe(tuning)).__mro__[1]):
        "Notes which checkpoints are whole whenever one was saved."
        def on_save(self, args, state, control, **kw): seen.append(sorted(int(p.parent.name.split('-')[1]) for p in Path(args.output_dir).glob('checkpoint-*/complete')))
    trainer.add_callback(Watch())
    trainer.train()
    assert seen == [[2], [2, 4], [4, 6], [6, 8]], 'an old checkpoint goes only when a newer one is whole'
    finish(trainer, recipe, run, None, {}, lambda line: None)
    assert list(run.path('tensorboard').rglob('events.out.tfevents*')) and not run.path('checkpoints').exists()
