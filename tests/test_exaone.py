"Converting and exporting EXAONE checkpoints: memory of a larger one, and processes that are killed (-9) on the way."
import importlib.util, json, signal, subprocess, sys
from pathlib import Path
import pytest

MEMORY = '''
import resource, sys
from pathlib import Path
from medvlm.exaone import convert
from medvlm.export import to_gguf
tiny, large, out = map(Path, sys.argv[1:])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024
convert(tiny, out/'tiny'); to_gguf(tiny, out/'tiny.gguf', 'q8_0')
before = peak()
convert(large, out/'large'); after = peak()
to_gguf(large, out/'large.gguf', 'q8_0')
print(after - before, peak() - before)
'''

# the first file (or tensor) is written, then the process waits to be killed
STUCK = '''
import sys, time
from medvlm import exaone, export
real = {'convert': exaone.rename_file, 'gguf': export.as_stored}[sys.argv[1]]
def once(*args):
    out = real(*args)
    once.n += 1
    if once.n == 2: print('writing', flush=True); time.sleep(600)
    return out
once.n = 0
if sys.argv[1] == 'convert': exaone.rename_file = once; exaone.convert(*sys.argv[2:])
else: export.as_stored = once; export.to_gguf(*sys.argv[2:])
'''

def python(code, *args):
    "Runs `code` in a process of its own and returns what it printed."
    done = subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout

def kill_while_writing(*args):
    "Starts `STUCK` and kills it in the middle."
    process = subprocess.Popen([sys.executable, '-c', STUCK, *map(str, args)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'writing\n'
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp('exaone')/'tiny'
    python('import sys; from medvlm.exaone import small_exaone; small_exaone(sys.argv[1], shard="100KB")', folder)
    return folder

def test_conversion_and_export_do_not_hold_the_model(tiny, tmp_path):
    large = tmp_path/'source'
    python('import sys; from medvlm.exaone import small_exaone; small_exaone(sys.argv[1], hidden=768, layers=8, heads=12, kv=4, shard="100MB")', large)
    size = sum(f.stat().st_size for f in large.glob('*.safetensors'))//2**20
    (tmp_path/'out').mkdir()
    convert, export = map(int, python(MEMORY, tiny, large, tmp_path/'out').split())
    assert size > 150
    assert convert < .25*size and export < .4*size, f'{convert} and {export} MiB more for a checkpoint of {size} MiB'

def test_killed_conversion_leaves_nothing_and_can_be_repeated(tiny, tmp_path):
    out = tmp_path/'out'
    kill_while_writing('convert', tiny, out)
    assert not out.exists()
    python('import sys; from medvlm.exaone import convert; convert(*sys.argv[1:])', tiny, out)
    assert [p.name for p in tmp_path.iterdir()] == ['out']
    assert json.loads((out/'config.json').read_text())['model_type'] == 'llama'

def test_killed_export_leaves_the_old_file(tiny, tmp_path):
    out = tmp_path/'model.gguf'
    code = 'import sys; from medvlm.export import to_gguf; to_gguf(*sys.argv[1:])'
    python(code, tiny, out)
    before = out.read_bytes()
    kill_while_writing('gguf', tiny, out, 'q8_0')
    assert out.read_bytes() == before
    python(code, tiny, out, 'q8_0')
    assert 0 < out.stat().st_size < len(before)

@pytest.mark.skipif(importlib.util.find_spec('llama_cpp') is not None, reason='llama_cpp is installed')
def test_llama_bench_says_what_it_needs(tmp_path):
    bench = Path(__file__).resolve().parents[1]/'bench'/'gguf.py'
    for more in (['--llama', sys.executable], ['--read', str(tmp_path)]):
        done = subprocess.run([sys.executable, bench, *more, '--out', tmp_path/'gguf.json'], capture_output=True, text=True)
        assert done.returncode and 'has no llama_cpp; needed is a Python that has; install it with `pip install llama-cpp-python`' in done.stderr, done.stderr[-500:]
    assert not list(tmp_path.iterdir())
