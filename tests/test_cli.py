"The terminal commands on bad input: one clear line, status 2, and nothing lost."
import json, shutil, subprocess, sys
from pathlib import Path
import pytest
from medvlm.cli import main

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT/'data_samples'/'rx'

@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    "A bundle of an untrained tiny model with the small recipe."
    from dataclasses import asdict, replace
    from medvlm import core
    from medvlm.models import load, prepare, save_bundle
    from medvlm.small import pretrain
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
    assert '2 rows in quarantine' in out and f'{len(rows) - 2} rows' in out
    bad = [json.loads(l) for l in (folder/'runs'/'bad'/'quarantine.jsonl').read_text().splitlines()]
    assert {r['id'] for r in bad} == {r['id'] for r in rows[:2]} and all(r['reason'] for r in bad)
    answers = [json.loads(l) for l in (folder/'runs'/'bad'/'answers.jsonl').read_text().splitlines()]
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


@pytest.fixture
def runs(tmp_path):
    "Sample forms answered rightly and with a wrong name each, scored from the terminal, and the folder of the runs."
    from medvlm.data import read_llava
    from medvlm.eval import reference_of
    refs = [reference_of(r) for r in read_llava(SAMPLE/'rows.json')]
    for name, old in (('right', '~'), ('wrong', '0')):
        (tmp_path/f'{name}.jsonl').write_text('\n'.join(json.dumps(dict(id=r['id'], text=r['text'].replace(old, '9'), finish_reason='stop'), ensure_ascii=False) for r in refs))
        assert main(['eval', str(tmp_path/f'{name}.jsonl'), str(SAMPLE/'rows.json'), '--name', name, '--root', str(tmp_path), '--hide', 'patient_name, patient_rrn']) == 0
    return tmp_path, refs

def test_what_is_hidden_stays_hidden(runs, capsys):
    "In every file that is meant to be read, after eval, report and compare."
    root, refs = runs
    from medvlm.qwen_ocr import parse_answer
    secret = {v for r in refs for k, v in parse_answer(r['text']).items() if k in ('patient_name', 'patient_rrn')}
    assert main(['report', str(root/'wrong')]) == 0
    assert main(['compare', str(root/'right'), str(root/'wrong'), '--name', 'both', '--root', str(root)]) == 0
    for run in ('right', 'wrong', 'both'):
        for f in ('report.html', 'report.md', 'README.md'):
            text = (root/run/f).read_text()
            assert not [s for s in secret if s in text] and '•••' in text or f == 'README.md'
        assert not list((root/run/'figures').glob('*.jpg'))
    assert not [s for s in secret if s in capsys.readouterr().out]

@pytest.mark.parametrize('words,say', [(['eval', '{r}/right.jsonl', '{s}/rows.json', '--name', 'x', '--hide', 'nobody'], "hide 'nobody'"), (['eval', '{r}/wrong.jsonl', '{s}/rows.json', '--name', 'right'], 'another run'),
                                       (['compare', '{r}/right', '{r}/wrong', '--name', 'right'], 'one of the runs'), (['compare', '{r}/right'], '1 model'), (['report', '{r}'], 'no references.jsonl'), (['report', '{r}/right:right'], 'no run folder'),
                                       (['eval', '{r}/right', '{s}/rows.json', '--name', 'x'], 'no bundle'), (['eval', '{r}/right.jsonl', '{s}/rows.json', '--name', 'x', '--job', 'lung'], 'label outside')])
def test_wrong_words_to_eval_compare_report(runs, words, say, capsys):
    root, _ = runs
    words = [w.format(r=root, s=SAMPLE) for w in words] + (['--root', str(root)] if words[0] != 'report' else [])
    assert main(words) == 2
    err = capsys.readouterr().err
    assert say in err and 'Traceback' not in err and err.count('\n') == 1

def test_the_card_shows_its_own_figures(runs):
    root, _ = runs
    for f in ('report.md', 'README.md'):
        text = (root/'wrong'/f).read_text()
        shown = [l for l in text.splitlines() if l.startswith('![')]
        assert shown and all((root/'wrong'/l.rpartition('](')[2].rstrip(')')).exists() for l in shown)
        assert text.index('## Scores') < text.index('(figures/scores_0.png)') < text.index('## Fields')
