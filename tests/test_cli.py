"The terminal commands on bad input: one clear line, status 2, and nothing lost."
import json, shutil, subprocess, sys
from pathlib import Path
import pytest
from PIL import Image
from medvlm.cli import main

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT/'data_samples'/'rx'

@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    "A bundle of an untrained tiny model with the small recipe."
    from dataclasses import asdict, replace
    from medvlm import core
    from medvlm.models import load, prepare, pretrain, save_bundle
    from medvlm.train import RECIPES
    tmp = tmp_path_factory.mktemp('bundle')
    pretrain(2, tmp/'tiny', batch=2, fonts=sorted(str(p) for p in core.korean_font().parent.glob('*.ttf')), hidden=48, layers=1, vision_layers=1, heads=2)
    recipe = replace(RECIPES['ocr_7b_small'], base=str(tmp/'tiny'), new_tokens=4)
    model, processor = load(recipe.base, recipe.policy)
    return save_bundle(prepare(model, recipe.tuning), processor, tmp/'bundle', recipe.base, recipe.policy, recipe=asdict(recipe))

@pytest.fixture
def pages(tmp_path):
    "The sample rows, with one truncated image and one that is missing."
    for f in SAMPLE.iterdir(): shutil.copy(f, tmp_path/f.name)
    rows = json.loads((tmp_path/'rows.json').read_text())
    first, second = (tmp_path/Path(r['image']).name for r in rows[:2])
    first.write_bytes(first.read_bytes()[:9000])
    second.unlink()
    return tmp_path, rows

def test_bad_images_go_to_quarantine(bundle, pages, capsys):
    folder, rows = pages
    assert main(['eval', str(bundle), str(folder/'rows.json'), '--images', str(folder), '--root', str(folder/'runs'), '--name', 'bad']) == 0
    out = capsys.readouterr().out
    assert '2 rows in quarantine' in out and f'{len(rows) - 2} pages' in out
    bad = [json.loads(l) for l in (folder/'runs'/'bad'/'quarantine.jsonl').read_text().splitlines()]
    assert {r['id'] for r in bad} == {r['id'] for r in rows[:2]} and all(r['reason'] for r in bad)
    answers = [json.loads(l) for l in (folder/'runs'/'bad'/'answers_tuned.jsonl').read_text().splitlines()]
    assert [a['id'] for a in answers] == [r['id'] for r in rows[2:]]
    assert (folder/'runs'/'bad'/'report.html').exists() and json.loads((folder/'runs'/'bad'/'scores.json').read_text())['unparsable']['value'] == 1

@pytest.mark.parametrize('text,words', [('', 'empty'), ('[]', ''), ('{"id": 1}', ''), ('[{"id": ', '')])
def test_broken_json(text, words, bundle, tmp_path, capsys):
    (tmp_path/'rows.json').write_text(text)
    assert main(['eval', str(bundle), str(tmp_path/'rows.json'), '--images', str(tmp_path), '--root', str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith('medvlm eval: ') and 'rows.json' in err and words in err and err.count('\n') == 1

@pytest.mark.parametrize('words', [['eval', '{b}', 'no_rows.json'], ['eval', 'no_bundle', '{s}/rows.json', '--images', '{s}'], ['train', 'no_recipe.toml'],
                                   ['demo', '--rows', '{s}/rows.json', '--images', 'no_folder'], ['eval', '{b}', '{s}', '--images', '{s}']])
def test_wrong_paths(words, bundle, tmp_path, capsys):
    assert main([w.format(b=bundle, s=SAMPLE) for w in words] + ['--root', str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f'medvlm {words[0]}: ') and 'Traceback' not in err

def test_help_stays_light():
    "Neither importing the package nor asking for help loads torch."
    code = "import sys; from medvlm.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint([m for m in ('torch', 'transformers', 'datasets', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert 'demo' in out and out.strip().endswith('[]')
