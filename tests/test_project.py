"The project around the notebooks: metadata, the scripts in .ci, and what importing costs."
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / 'nbs').glob('*.ipynb'))
EXTRAS = ('gpu', 'serve', 'web', 'track', 'dicom', 'dev')
STORED = {'name': 'stdout', 'output_type': 'stream', 'text': ['stored\n']}


@pytest.fixture(scope='module')
def settings():
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT / 'settings.ini', encoding='utf-8')
    return ini['DEFAULT']


@pytest.fixture(scope='module')
def pins():
    lines = (line.split('#')[0].strip() for line in (ROOT / 'constraints.txt').read_text().splitlines())
    return {canonicalize_name(name): version for name, version in (line.split('==') for line in lines if line)}


@pytest.fixture
def project(tmp_path):
    "A project of its own, with the scripts and settings of this one and no notebooks."
    shutil.copytree(ROOT / '.ci', tmp_path / '.ci', ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(ROOT / 'settings.ini', tmp_path)
    (tmp_path / 'nbs').mkdir()
    return tmp_path


def write_notebook(path, *cells, language='python'):
    "A notebook at `path`; a cell is the source of a code cell, or a pair of its type and source. Code cells hold an output already."
    made = []
    for number, cell in enumerate(cells):
        kind, source = cell if isinstance(cell, tuple) else ('code', cell)
        made.append({'cell_type': kind, 'id': f'cell{number}', 'metadata': {}, 'source': source.splitlines(True)})
        if kind == 'code': made[-1].update(execution_count=None, outputs=[STORED])
    kernel = {'display_name': 'x', 'language': language, 'name': 'python3'}
    path.write_text(json.dumps({'cells': made, 'metadata': {'kernelspec': kernel}, 'nbformat': 4, 'nbformat_minor': 5}), encoding='utf-8')
    return path


def outputs(path):
    "Text of the outputs of each code cell of the notebook at `path`."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    text = lambda out: ''.join(out.get('text') or out['data'].get('text/plain', []))
    return [''.join(map(text, cell['outputs'])) for cell in cells if cell['cell_type'] == 'code']


def script(project, name, *args):
    "Run the script `name` of `project` there."
    return subprocess.run([sys.executable, f'.ci/{name}', *map(str, args)], cwd=project, capture_output=True, text=True, encoding='utf-8')


# Metadata

@pytest.mark.parametrize('key', ['requirements', 'dev_requirements'])
def test_ranges_admit_the_pins(settings, pins, key):
    for requirement in map(Requirement, settings[key].split()):
        name = canonicalize_name(requirement.name)
        assert name in pins, f'{name} has no line in constraints.txt'
        assert requirement.specifier.contains(pins[name]), f'{requirement} does not admit {pins[name]}, the version under test'


def test_ranges_are_those_that_work_with_unsloth_and_on_a_cpu(settings):
    ranges = {r.name: r.specifier for r in map(Requirement, settings['requirements'].split())}
    for name, inside, outside in [('torch', '2.14.0', '2.15.0'), ('transformers', '5.17.0', '5.18.0'), ('trl', '1.14.0', '1.15.0'),
                                  ('datasets', '4.8.5', '5.0.0'), ('fastcore', '1.14.5', '2.0.0')]:
        assert ranges[name].contains(inside) and not ranges[name].contains(outside), name


def test_pins_are_the_installed_versions(pins):
    installed = {name: metadata.version(name) for name in pins if any(metadata.distributions(name=name))}
    different = {name: (version, pins[name]) for name, version in installed.items() if version.split('+')[0] != pins[name]}
    assert not different, 'installed and pinned; run make setup'


def test_wheel_holds_metadata_and_data(settings, tmp_path):
    tree = tmp_path / 'tree'
    shutil.copytree(ROOT / 'medvlm', tree / 'medvlm', ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'): shutil.copy(ROOT / name, tree)
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '--no-index', '-w', str(tmp_path), str(tree)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as wheel:
        names = set(wheel.namelist())
        about = wheel.read(next(n for n in names if n.endswith('METADATA'))).decode()
        scripts = wheel.read(next(n for n in names if n.endswith('entry_points.txt'))).decode()
    package = {p.relative_to(tree).as_posix() for p in (tree / 'medvlm').rglob('*') if p.is_file()}
    assert not package - names, 'not in the wheel; see DATA in setup.py'
    assert re.findall(r'^Provides-Extra: (.+)$', about, re.M) == list(EXTRAS)
    assert f"Version: {settings['version']}\n" in about and f">={settings['min_python']}\n" in about
    assert 'medvlm = medvlm.cli:main' in scripts


# Notebooks and modules

def test_every_module_comes_from_a_notebook():
    # nbdev_export leaves the module of a deleted notebook where it is.
    sources = [''.join(cell['source']) for nb in NOTEBOOKS for cell in json.loads(nb.read_text(encoding='utf-8'))['cells']]
    exported = {match[1] for match in (re.match(r'#\|\s*default_exp (\S+)', source) for source in sources) if match}
    assert {p.stem for p in (ROOT / 'medvlm').glob('*.py')} - {'__init__', '_modidx'} == exported


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_say_nothing_of_the_machine(path):
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        for out in cell.get('outputs', []):
            assert out['output_type'] != 'error' and out.get('name') != 'stderr', cell['id']
            text = ''.join(out.get('text', [])) + ''.join(''.join(v) for k, v in out.get('data', {}).items() if k.startswith('text/'))
            assert not re.search(r'(?<!\w)/(tmp|home|root|Users|var|work|content|workspace)/', text), cell['id']
    assert path.stat().st_size < 400_000


@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if p.stem != 'index'], ids=lambda path: path.stem)
def test_notebook_opens_in_colab_and_installs_itself(path):
    text = path.read_text(encoding='utf-8')
    assert f'colab.research.google.com/github/medvlm/medvlm/blob/main/nbs/{path.name}' in text
    assert r'\"git\", \"clone\", \"-q\", \"https://github.com/medvlm/medvlm\"' in text
    assert r'\"-m\", \"pip\", \"install\"' in text


def test_import_is_light():
    code = ('import sys, time; start = time.perf_counter(); import medvlm; took = time.perf_counter() - start\n'
            'heavy = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "transformers", "unsloth", "gradio", "datasets", "matplotlib"})\n'
            'print(took, *heavy)')
    runs = [subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split() for _ in range(3)]
    assert runs[0][1:] == []
    assert min(float(run[0]) for run in runs) < 0.3


# README and site

def test_readme_is_in_step():
    done = script(ROOT, 'readme.py', '--check')
    assert done.returncode == 0, done.stderr


def test_readme_drops_hidden_cells_and_directives(project):
    write_notebook(project / 'nbs/index.ipynb', ('markdown', '# T\n[a](00_a.ipynb) [b](https://b.org/b.ipynb)'), '#| hide\nhidden = 1', '#| export\nexported = 1',
                   '#| eval: false\nshown = 1', 'import nbdev; nbdev.nbdev_export()')
    assert script(project, 'readme.py', '--check').returncode == 1
    assert script(project, 'readme.py').returncode == 0
    text = (project / 'README.md').read_text(encoding='utf-8')
    assert '[a](nbs/00_a.ipynb) [b](https://b.org/b.ipynb)' in text
    assert 'shown = 1' in text and 'stored' in text
    assert not re.search(r'hidden|exported|nbdev|#\s*\|', text)
    assert script(project, 'readme.py', '--check').returncode == 0


def test_plain_site(project):
    write_notebook(project / 'nbs/index.ipynb', ('raw', '---\nfront: matter\n---'), ('markdown', '# Home\n[a](00_a.ipynb)'))
    write_notebook(project / 'nbs/00_a.ipynb', '#| default_exp a', ('markdown', '# First'), '#| export\nexported = 1', '#| hide\nhidden = 1')
    without_quarto = os.pathsep.join(d for d in os.environ['PATH'].split(os.pathsep) if not (Path(d) / 'quarto').exists())
    subprocess.run([sys.executable, '.ci/docs.py'], cwd=project, env={**os.environ, 'PATH': without_quarto}, check=True, capture_output=True)
    pages = {p.name: p.read_text(encoding='utf-8') for p in (project / '_docs').glob('*.html')}
    assert set(pages) == {'index.html', '00_a.html'}
    for page in pages.values():
        assert 'href="index.html"' in page and 'href="00_a.html"' in page
        assert not re.search(r'front: matter|hidden|default_exp|#\|', page)
    assert 'exported' in pages['00_a.html'] and '<title>First' in pages['00_a.html']


# Running and testing notebooks

def test_run_keeps_and_repeats_outputs(project):
    path = write_notebook(project / 'nbs/00_a.ipynb', 'print("made")', '#| gpu\nprint("made")', '#| eval: false\nprint("made")', 'object()',
                          'import sys\nprint("warning", file=sys.stderr)\nfor i in range(3): print(f"\\r{i}", end="")', 'from pathlib import Path\nPath.cwd().name')
    assert script(project, 'run_notebooks.py').returncode == 0
    assert outputs(path) == ['made\n', 'stored\n', 'stored\n', '<object>', '2', "'nbs'"]
    first = path.read_bytes()
    assert script(project, 'run_notebooks.py', path).returncode == 0
    assert path.read_bytes() == first
    subprocess.run([Path(sys.executable).with_name('nbdev_clean')], cwd=project, check=True)
    assert path.read_bytes() == first
    assert script(project, 'run_notebooks.py', '--flags', 'gpu', path).returncode == 0
    assert outputs(path)[1:3] == ['made\n', 'stored\n']


def test_run_leaves_a_failing_notebook_alone(project):
    bad = write_notebook(project / 'nbs/00_bad.ipynb', 'print("made")', '1 / 0')
    dead = write_notebook(project / 'nbs/01_dead.ipynb', 'print("made")', 'import os; os._exit(3)')
    good = write_notebook(project / 'nbs/02_good.ipynb', 'print("made")')
    before = bad.read_bytes(), dead.read_bytes()
    done = script(project, 'run_notebooks.py')
    assert done.returncode == 1 and '2 of 3 notebooks failed: 00_bad.ipynb, 01_dead.ipynb' in done.stderr and 'ZeroDivisionError' in done.stderr
    assert (bad.read_bytes(), dead.read_bytes()) == before
    assert outputs(good) == ['made\n']
    assert sorted(p.name for p in (project / 'nbs').iterdir()) == ['00_bad.ipynb', '01_dead.ipynb', '02_good.ipynb']


def test_run_refuses_what_is_not_there(project):
    assert 'No notebooks found' in script(project, 'run_notebooks.py').stderr
    done = script(project, 'run_notebooks.py', 'nbs/no.ipynb')
    assert done.returncode == 1 and 'No such notebook' in done.stderr


def test_completions_are_counted(project):
    assert 'No notebooks' in script(project, 'test_notebooks.py').stderr
    write_notebook(project / 'nbs/00_good.ipynb', 'assert True', '#| gpu\nassert False')
    done = script(project, 'test_notebooks.py')
    assert done.returncode == 0 and '1 of 1 notebooks completed and passed' in done.stdout
    # nbdev_test exits with 0 for both of these without running them.
    write_notebook(project / 'nbs/01_front.ipynb', ('raw', '---\nskip_exec: true\n---'), 'assert False')
    write_notebook(project / 'nbs/02_other.ipynb', 'assert False', language='julia')
    done = script(project, 'test_notebooks.py')
    assert done.returncode == 1 and '1 of 3 notebooks completed and passed' in done.stdout
    assert done.stdout.count('was not run') == 2


def test_a_failing_notebook_fails(project):
    write_notebook(project / 'nbs/00_bad.ipynb', 'assert 1 == 2, "one is not two"')
    done = script(project, 'test_notebooks.py')
    assert done.returncode == 1 and '00_bad.ipynb: failed' in done.stdout and 'one is not two' in done.stdout


def test_python_for_the_environment(tmp_path):
    launcher = tmp_path / 'python3.12'
    launcher.write_text('#!/bin/sh\necho "python3.12: command not found" >&2\nexit 127\n')
    launcher.chmod(0o755)
    find = lambda *names: subprocess.run([ROOT / '.ci/python', *names], capture_output=True, text=True)
    assert find(str(launcher), sys.executable).stdout.strip() == sys.executable
    none = find(str(launcher))
    assert none.returncode == 1 and 'needs Python 3.11' in none.stderr and 'make PYTHON=' in none.stderr
