"Merging, where a notebook cannot go: a process that is killed before its proof is done, and plain transformers in a process without this library."
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from medvlm import core
from medvlm.data import assistant, row, user
from medvlm.merge import check_proven, file_digests, merge
from medvlm.models import ImagePolicy, Part, Tuning, load, prepare, save_bundle
from medvlm.small import save_small, small_tokenizer, small_vlm

ROOT = Path(__file__).resolve().parents[1]
WAITS = '''
import sys, time
import medvlm.merge as m
from test_merge import rows
real = m.prove
def slow(*args, **kw):
    print('proving', flush=True); time.sleep(600)
    return real(*args, **kw)
m.prove = slow
m.merge(sys.argv[1], sys.argv[2], rows=rows(), limit=4)
'''
PLAIN = '''
import json, sys
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
assert 'medvlm' not in sys.modules
folder, sizes = sys.argv[1], [(1191, 1684), (640, 480), (40, 30)]
model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
grids = [processor.image_processor(images=[Image.new('RGB', s)], return_tensors='pt')['image_grid_thw'][0].prod().item()//4 for s in sizes]
text = processor.apply_chat_template([dict(role='user', content=[dict(type='image'), dict(type='text', text='읽기')])], tokenize=False, add_generation_prompt=True)
batch = processor(text=[text], images=[Image.new('RGB', (112, 56), 'white')], return_tensors='pt')
out = model.generate(**batch, max_new_tokens=6, do_sample=False)[0, batch['input_ids'].shape[1]:]
print(json.dumps(dict(grids=grids, ids=out.tolist())))
'''


def rows():
    return [row('white', [Image.new('RGB', (112, 56), 'white')], [user('읽기', 1), assistant('가')], group='g')]


def tuned(folder, by):
    "A bundle of the small base in `folder`, every trained weight moved by about `by`."
    full, policy = Part('full', 1e-4), ImagePolicy(28*28, 96*28*28)
    model, processor = load(str(folder), policy)
    core.seed_all(0)
    model = prepare(model, Tuning(full, full, Part('lora', 1e-4)))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad: p.add_(torch.randn_like(p)*by)
    return save_bundle(model, processor, folder.parent/f'bundle-{by}', str(folder), policy)


@pytest.fixture(scope='module')
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp('merge')
    save_small(*small_vlm(small_tokenizer(), 0, hidden=48, layers=1, vision_layers=1, heads=2), folder/'base', {})
    return [tuned(folder/'base', by) for by in (.02, .03)]


def start(code, *args):
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT/'tests')])}
    return subprocess.Popen([sys.executable, '-c', code, *map(str, args)], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def kill_while_proving(bundle, out):
    process = start(WAITS, bundle, out)
    assert process.stdout.readline() == 'proving\n'
    process.send_signal(signal.SIGKILL); process.wait()


def test_killed_before_the_proof_leaves_nothing(bundles, tmp_path):
    kill_while_proving(bundles[0], tmp_path/'merged')
    assert not (tmp_path/'merged').exists()
    merge(bundles[0], tmp_path/'merged', rows=rows(), limit=4, say=lambda line: None)
    assert [p.name for p in tmp_path.iterdir()] == ['merged']
    check_proven(tmp_path/'merged')


def test_killed_over_an_older_folder_leaves_that(bundles, tmp_path):
    merge(bundles[0], tmp_path/'merged', rows=rows(), limit=4, say=lambda line: None)
    before = file_digests(tmp_path/'merged')
    kill_while_proving(bundles[1], tmp_path/'merged')
    assert file_digests(tmp_path/'merged') == before
    check_proven(tmp_path/'merged')
    merge(bundles[1], tmp_path/'merged', rows=rows(), limit=4, say=lambda line: None)
    assert file_digests(tmp_path/'merged')['model.safetensors'] != before['model.safetensors']


def test_plain_transformers_in_a_process_of_its_own(bundles, tmp_path):
    from medvlm.merge import trace
    from medvlm.models import load_bundle
    merge(bundles[0], tmp_path/'merged', rows=rows(), limit=6, say=lambda line: None)
    process = start(PLAIN, tmp_path/'merged')
    said = json.loads(process.communicate()[0])
    assert said['grids'] == [ImagePolicy(28*28, 96*28*28).tokens(*s) for s in ((1191, 1684), (640, 480), (40, 30))]
    model, processor, _ = load_bundle(bundles[0])
    assert said['ids'] == trace(model, processor, rows()[0], 6)[0]
