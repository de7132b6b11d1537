"""The skin job from a terminal, and servers that do not come up."""
import pytest

from medvlm import core
from medvlm.cli import main
from medvlm.data import load_splits
from medvlm.serve import serving
from medvlm.sources import read_skin
from medvlm.standin import Flaws, SkinAnswer, Standin


def run(*words): return main([str(w) for w in words])


def test_five_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('MEDVLM_STANDIN_KEY', 'test'); work = tmp_path/'work'
    assert run('skin', 'samples', tmp_path/'tree', '--draw', 3) == 0 and run('skin', 'parse', tmp_path/'tree', '--out', work) == 0
    with Standin(SkinAnswer(read_skin(tmp_path/'tree'), Flaws(english=.5, cut=.1), seed=1)) as server:
        asked = ('skin', 'describe', work, '--provider', server.url + '/v1', '--key', 'MEDVLM_STANDIN_KEY', '--model', 'standin', '--price', '0.15,0.6', '--at-once', 4)
        assert run(*asked, '--dry-run') == 0 and '36 of 36 faces are to be asked about' in capsys.readouterr().out and not (work/'described.jsonl').exists()
        assert run(*asked, '--cap', '1') == 0 and run('skin', 'check', work) == 0 and run('skin', 'fix', work, '--apply') == 0
        left = len(core.load_jsonl(work/'ask_again.jsonl')); assert run(*asked, '--again') == 0 and f'{left} rows are open again' in capsys.readouterr().out
        assert run('skin', 'fix', work, '--apply') == 0
    assert run('skin', 'push', work, 'who/faces', '--dry-run', tmp_path/'repo') == 0
    assert {k: len(v) for k, v in load_splits(work/'set').items()} == {'train': 24, 'test': 12} and (work/'audit.html').exists() and (work/'review.html').exists()


@pytest.mark.parametrize('words,said', ((('skin', 'describe', 'nowhere'), 'begin with `medvlm skin parse'), (('skin', 'samples', 'x', '--draw', '1'), '--draw 1; allowed are 2')))
def test_wrong_use(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('OPENAI_API_KEY', 'none')
    assert run(*words) == 2 and said in capsys.readouterr().err


def test_no_key_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path); monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    run('skin', 'samples', 'tree', '--draw', 2); run('skin', 'parse', 'tree', '--out', 'work'); capsys.readouterr()
    assert run('skin', 'describe', 'work') == 2 and 'OPENAI_API_KEY is not set' in capsys.readouterr().err


def test_a_server_that_does_not_come_up_says_why(tmp_path):
    core.save_json(dict(model_type='nothing'), tmp_path/'model'/'config.json')
    with pytest.raises(RuntimeError, match='ended with'): serving(tmp_path/'model', log=tmp_path/'log').__enter__()
    with pytest.raises(FileNotFoundError, match='no config.json'): serving(tmp_path).__enter__()
