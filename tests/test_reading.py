"Reading many files in a process that is killed (-9): the next run goes on, nothing is read twice and nothing is lost."
import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = '''
import sys
from pathlib import Path
from medvlm.reading import open_reader, read_files
tmp, out = Path(sys.argv[1]), sys.argv[2]
print(read_files(open_reader(tmp/'runs'/'tiny'/'bundle'), [tmp/'inbox'], tmp/out, 'zh'), flush=True)
'''


@pytest.fixture(scope='module')
def tmp(tmp_path_factory):
    "A bundle that reads nothing, and a folder with forms, a PDF and a broken file."
    from dataclasses import replace
    from medvlm import core
    from medvlm.forms import draw
    from medvlm.qwen_ocr import page_row, train_pages
    from medvlm.small import pretrain
    from medvlm.train import RECIPES
    tmp = tmp_path_factory.mktemp('reading')
    with contextlib.redirect_stdout(io.StringIO()):
        pretrain(2, tmp/'base', batch=2, fonts=sorted(str(p) for p in core.korean_font().parent.glob('*.ttf')), hidden=48, layers=1, vision_layers=1, heads=2)
        recipe = replace(RECIPES['ocr_7b_small'], name='tiny', base=str(tmp/'base'), steps=2, batch=8, new_tokens=4, views=1)
        train_pages(recipe, [page_row(draw(10_001, width=595))], core.Run('tiny', tmp/'runs'), say=lambda line: None)
    (tmp/'inbox').mkdir()
    forms = [draw(96_000 + i, 'clinic', width=500).image for i in range(5)]
    for i, im in enumerate(forms[:4]): im.save(tmp/'inbox'/f'{i}.png')
    forms[4].resize((250, 354)).save(tmp/'inbox'/'stack.pdf', save_all=True, append_images=[forms[3].resize((250, 354))])
    (tmp/'inbox'/'broken.jpg').write_bytes(b'\xff\xd8')
    return tmp


def start(tmp, out):
    "Starts reading in a process of its own."
    return subprocess.Popen([sys.executable, '-c', SCRIPT, str(tmp), out], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def lines(path):
    "Whole lines of a file that may be growing."
    return [json.loads(l) for l in path.read_bytes().split(b'\n')[:-1] if l.strip()] if path.exists() else []


def test_killed_reading_goes_on(tmp):
    whole = start(tmp, 'whole')
    text, _ = whole.communicate(timeout=500)
    assert whole.returncode == 0, text
    killed = start(tmp, 'killed')
    path, limit = tmp/'killed'/'readings.jsonl', time.time() + 400
    while len(lines(path)) < 2 and killed.poll() is None and time.time() < limit: time.sleep(.01)
    killed.send_signal(signal.SIGKILL); killed.wait()
    assert killed.returncode == -9, 'it ended before it could be killed'
    first = lines(path)
    assert 2 <= len(first) < 6 and not (tmp/'killed'/'readings.csv').exists()
    with path.open('ab') as f: f.write(b'{"file": "half')
    again = start(tmp, 'killed')
    text, _ = again.communicate(timeout=500)
    assert again.returncode == 0, text
    assert f"'read': {7 - len(first)}, 'before': {len(first)}" in text  # the broken file is tried again
    after = lines(path)
    assert after[:len(first)] == first
    places = [(r['file'], r['page'], r['form']) for r in after]
    assert len(places) == len(set(places)) == 6
    assert after == lines(tmp/'whole'/'readings.jsonl')
    for name in ('readings.csv', 'quarantine.jsonl'): assert (tmp/'killed'/name).read_bytes() == (tmp/'whole'/name).read_bytes()
    assert [Path(r['file']).name for r in lines(tmp/'killed'/'quarantine.jsonl')] == ['broken.jpg']


def test_changed_file_is_read_anew(tmp):
    from PIL import Image
    from medvlm.reading import open_reader, read_files
    reader = open_reader(tmp/'runs'/'tiny'/'bundle')
    box = tmp/'box'; box.mkdir()
    for name in 'ab': Image.new('RGB', (80, 100), 'white').save(box/f'{name}.png')
    assert read_files(reader, [box], tmp/'changing')['read'] == 2
    Image.new('RGB', (80, 101), 'white').save(box/'a.png')
    assert read_files(reader, [box], tmp/'changing')['read'] == 1
    assert sorted(Path(r['file']).name for r in lines(tmp/'changing'/'readings.jsonl')) == ['a.png', 'b.png']


def test_twenty_pages_of_a_longer_pdf(tmp):
    from PIL import Image
    from medvlm.reading import PAGES, open_reader, read_files
    blank = Image.new('L', (30, 40), 'white')
    blank.save(tmp/'long.pdf', save_all=True, append_images=[blank]*(PAGES + 1))
    counts = read_files(open_reader(tmp/'runs'/'tiny'/'bundle'), [tmp/'long.pdf'], tmp/'pages')
    assert (counts['read'], counts['notes'], PAGES) == (20, 1, 20)
    assert [r['page'] for r in lines(tmp/'pages'/'readings.jsonl')] == list(range(1, 21))
    assert 'pages 21 to 22 were not read' in lines(tmp/'pages'/'quarantine.jsonl')[0]['reason']


def test_reading_room_stays_out_of_the_way():
    "The room is imported by nobody who does not read, and itself loads no torch."
    code = "import sys, medvlm; a = 'pydantic' in sys.modules; import medvlm.documents, medvlm.questions; b = 'medvlm.qwen_ocr' in sys.modules; import medvlm.reading; print(a, b, 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip().endswith('False False False')


def test_bench_says_what_it_needs():
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, root/'bench'/'reading.py'], capture_output=True, text=True)
    assert done.returncode == 2 and 'arguments are required: bundle' in done.stderr


def test_commands_from_drawn_pages_to_answers(tmp, monkeypatch, capsys):
    "`medvlm ocr synth`, `train`, `read` and `ask`, for strips and for whole pages; the models learn nothing in two steps, so what they say is not looked at."
    from medvlm.cli import main
    monkeypatch.chdir(tmp)
    small = ['--set', f'base={tmp/"base"}', 'steps=2', 'batch=4', 'new_tokens=6', 'views=1']
    assert not main(['ocr', 'synth', 'lines', '--draw', '2', '--answers', 'labels'])
    assert not main(['ocr', 'train', 'ocr_7b_small', '--rows', 'lines/rows.json', '--name', 'strips', *small])
    assert not main(['ocr', 'read', 'runs/strips/bundle', 'inbox/0.png', '--out', 'read', '--lang', 'en', '--explain'])
    assert [r['file'] for r in lines(tmp/'read'/'readings.jsonl')] == ['inbox/0.png'] and 'pharmacist' in capsys.readouterr().out
    assert not main(['ocr', 'synth', 'whole_pages', '--draw', '5', '--kinds', 'prescription,receipt,statement,checkup,none'])
    assert not main(['ocr', 'train', 'ocr_7b_small', '--rows', 'whole_pages/rows.json', '--name', 'whole', *small, 'present=page', 'policy.min_pixels=784', 'policy.max_pixels=50176', 'max_tokens=4096'])
    capsys.readouterr()
    assert not main(['ocr', 'ask', 'runs/whole/bundle', 'inbox/0.png', 'Whose prescription is this?', '--lang', 'en'])
    assert 'pharmacist' in capsys.readouterr().out
    assert not main(['ocr', 'ask', 'runs/strips/bundle', 'inbox/0.png', 'Whose is it?', '--lang', 'en'])
    assert 'pharmacist' in capsys.readouterr().out
