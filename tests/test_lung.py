"""The lung job: leaks, mirrored films, models that always answer the same, gates, and any tree of folders."""
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medvlm import core, eval as ev
from medvlm.augment import exposures, write_exposures
from medvlm.cli import main
from medvlm.data import Quarantine, assistant, open_image, text_of, user
from medvlm.films import asked_shortly, cross_validate, film_rows, train_films, unseen_films, write_samples
from medvlm.labels import LUNG_CLASSES, class_collapse
from medvlm.losses import Loss, fact_spans, token_losses
from medvlm.lung import check_films, fact_words, laterality, lung_job, mean_film, mirrored_films, phantom_rows, train_lung
from medvlm.models import Answer
from medvlm.stats import score
from medvlm.train import RECIPES
from medvlm.vision import square, vision_first
from medvlm.watch import Watch, Watching, floors_of

SMALL = replace(RECIPES['lung_3b_small'], steps=2, batch=4, new_tokens=12, save_every=2, watch=Watch())
quiet = lambda line: None


@pytest.fixture(scope='module')
def drawn(tmp_path_factory): return phantom_rows(tmp_path_factory.mktemp('drawn'), 4, 0, 1, 112, small=True)


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tree')/'films'
    write_samples(folder, 10)
    return folder


# Leaks ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('first', (0, 2))
def test_planted_leak_is_refused_before_anything_is_learnt(drawn, tmp_path, first):
    with pytest.raises(ValueError, match='two splits|leaks between splits'): train_lung(SMALL, drawn, core.Run('leak', tmp_path), drawn[:1], first=first, say=quiet)
    assert not (tmp_path/'leak'/'vision').exists() and not (tmp_path/'leak'/'bundle').exists()


def test_same_patient_under_another_film_is_a_leak(drawn, tmp_path):
    film = tmp_path/'other.png'; square(drawn[0]['images'][0], 96).save(film)
    with pytest.raises(ValueError, match='leaks between splits'): train_lung(SMALL, drawn[:8], core.Run('leak', tmp_path), [dict(drawn[0], id='other', images=[str(film)])], say=quiet)


def test_copies_of_a_held_out_patient_are_refused(drawn, tmp_path):
    with pytest.raises(ValueError, match='split first'): write_exposures(exposures(drawn, 40), tmp_path/'copies', drawn[:2])


def test_copies_stay_with_their_patient(drawn):
    shown = exposures(drawn, 100, how='equal')
    group = {r['id']: r['group'] for r in drawn}
    assert {r['group'] for r in shown} == set(group.values()) and all(r['group'] == group[r['meta']['view']['of']] for r in shown)
    assert max(Counter(r['label'] for r in shown).values()) - min(Counter(r['label'] for r in shown).values()) <= 1


# Mirrored films ------------------------------------------------------------------------------------------------------

def test_a_flipped_heart_is_seen(tmp_path):
    rows = phantom_rows(tmp_path, 40, 500, 1, 112, classes=('Normal',))
    known = mean_film([r['images'][0] for r in rows[:20]])
    films = [open_image(r['images'][0]) for r in rows[20:]]
    right, wrong = (np.array(mirrored_films(some, known)) for some in (films, [f.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for f in films]))
    assert np.allclose(right, -wrong, atol=1e-3)                       # a mirror picture is told from its original
    assert (wrong > 0).mean() >= .85 and wrong.mean() > .1


# Always the same answer ----------------------------------------------------------------------------------------------

def test_a_majority_model_is_seen_for_what_it_is(drawn):
    e = ev.majority(drawn, drawn, lung_job())
    assert e.scores['accuracy'].value == 1/8 and e.scores['macro-F1'].value < .03
    assert class_collapse(e.truth, e.said, list(LUNG_CLASSES), e.joined.groups).warn


def test_the_alarm_rings_when_all_answers_name_one_class(drawn, tmp_path):
    job_score, label_of = ev.watched_by(lung_job())
    ask = lambda model, processor, rows: [Answer(r['id'], 'Class: Normal\nExplanation: The lungs are clear.', 'stop', 4, 0.) for r in rows]
    w = Watching(Watch(every=1, rows=16, score='macro-F1', floor=.3, collapse=.9), drawn, job_score, ask, tmp_path, quiet, label_of)
    record = w.decide(w.look(torch.nn.Linear(1, 1), None, 1))
    assert record['gate'] is False and not record['best'] and 'COLLAPSE' in record['alarms'][0] and w.outcome()['status'] == 'below floor'


# Gates ---------------------------------------------------------------------------------------------------------------

def test_a_run_below_its_gate_leaves_no_bundle(tree, tmp_path, capsys):
    words = ['lung', 'train', str(tree), '--first', '2', '--name', 'low', '--root', str(tmp_path), '--set', 'steps=2', 'batch=4', 'new_tokens=8', 'save_every=2', 'watch.every=2', 'watch.rows=8', 'watch.floor=0.5']
    assert main(words) == 2
    assert 'passed the floor of 0.5 for macro-F1' in capsys.readouterr().err and not (tmp_path/'low'/'bundle').exists()


def test_all_floors_must_be_reached():
    both = Watch(every=1, score='macro-F1', gate='ROUGE-L (word)', floor=.35, also=('macro-F1=0.5',))
    assert floors_of(both) == {'ROUGE-L (word)': .35, 'macro-F1': .5} and floors_of(RECIPES['lung_3b'].watch)['ROUGE-L (word)'] == .35
    with pytest.raises(ValueError, match="allowed is 'measure=floor'"): replace(both, also=('macro-F1',))


# Sides ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('said,right', (('Class: Normal\nExplanation: A small effusion is noted in the left lower zone.', 1), ('Class: Normal\nExplanation: A small effusion is noted in the right lower zone.', 0),
                                        ('Class: Normal\nExplanation: Small effusions are noted in both lower zones.', 0), ('Class: Higher_Density', 0), ('', 0)))
def test_sides_are_compared(drawn, said, right):
    r = dict(drawn[0], messages=[user('?', 1), assistant('Class: Higher_Density\nExplanation: A small effusion is noted in the left lower zone.')])
    s = score(laterality([r], [said])); assert (s.value, s.n) == (right, 1)


def test_a_report_without_a_side_counts_in_no_laterality(drawn):
    r = dict(drawn[0], messages=[user('?', 1), assistant('Class: Normal\nExplanation: The lungs are clear.')])
    assert score(laterality([r], ['Class: Normal\nExplanation: Air on the left.'])).n == 0


def test_facts_are_whole_words_and_carry_their_article():
    assert fact_words('Class: X\nExplanation: Air on the left; upright film.') == ['the left'] and fact_spans('upright, on the right', ['right']) == [(16, 21)]


def test_label_and_fact_count_alike_and_text_does_not():
    z, t, k = torch.randn(3, 5), torch.arange(3), torch.tensor([1, 2, 3])
    assert torch.allclose(token_losses(z, t, k, Loss(label=4.))[0], token_losses(z, t, k, Loss())[0]*torch.tensor([1., 4, 4]))
    with pytest.raises(ValueError, match='label=-1'): Loss(label=-1.)


# First stage ---------------------------------------------------------------------------------------------------------

def test_first_stage_changes_vision_only_and_is_not_run_twice(drawn, tmp_path):
    run, lines = core.Run('two', tmp_path), []
    train_lung(SMALL, drawn, run, [], first=100, say=lines.append); changed = (tmp_path/'two'/'vision'/'model.safetensors').stat().st_mtime_ns
    train_lung(SMALL, drawn, run, [], first=100, say=lines.append)
    assert sum('vision, step' in l for l in lines) == 1 and (tmp_path/'two'/'vision'/'model.safetensors').stat().st_mtime_ns == changed


def test_first_stage_wants_one_size_and_two_classes(drawn, tmp_path):
    large = tmp_path/'large.png'; square(drawn[0]['images'][0], 140).save(large)
    with pytest.raises(ValueError, match='2 sizes'): vision_first(SMALL, [*drawn, dict(drawn[0], images=[str(large)])], tmp_path/'no', 1)
    with pytest.raises(ValueError, match='two or more'): vision_first(SMALL, drawn[:3], tmp_path/'no', 1)


# Any tree of folders -------------------------------------------------------------------------------------------------

def test_samples_are_read_back(tree):
    q = Quarantine(); rows = film_rows([tree], SMALL, tree.parent/'squares', quarantine=q)
    assert Counter(r['label'] for r in rows) == dict.fromkeys(LUNG_CLASSES, 10) and len({r['group'] for r in rows}) == 80 and not q
    assert all('\nExplanation: ' in text_of(r['messages'][-1]) for r in rows) and {open_image(r['images'][0]).size for r in rows} == {(112, 112)}


@pytest.mark.parametrize('what', ('sixteen bits', 'inverted', 'colour', 'wide'))
def test_odd_films(tree, tmp_path, what):
    film = np.asarray(open_image(next((tree/'Normal').glob('*.png'))).convert('L')).astype(float)
    made = dict([('sixteen bits', Image.fromarray((film*257).astype(np.uint16))), ('inverted', Image.fromarray((255 - film).astype(np.uint8))),
                 ('colour', Image.fromarray(np.stack([film, film*.5, film*.2], -1).astype(np.uint8))), ('wide', Image.fromarray(np.repeat(film, 2, 1).astype(np.uint8)))])[what]
    made.save(tmp_path/'film.png'); q = check_films([dict(id='film', images=[str(tmp_path/'film.png')], label='Normal'), dict(id='film2', images=[str(tmp_path/'film.png')], label='Normal')])
    reasons = ' '.join(x['reason'] for x in q.notes)
    assert ('negative' in reasons) == (what == 'inverted') and ('colour' in reasons) == (what == 'colour')
    laid = np.asarray(square(tmp_path/'film.png', 112)).astype(float)
    assert laid.shape == (112, 112)
    if what == 'sixteen bits': assert np.abs(laid - film).mean() < 6      # the same film, whatever its depth
    if what == 'wide': assert (laid[:20] == 0).all() and laid[56].mean() > 20


def test_a_class_with_one_film_is_named(tree, tmp_path):
    import shutil
    own = tmp_path/'own'
    for c in ('Normal', 'Obstructive'): shutil.copytree(tree/c, own/c)
    (own/'Seltén klasse').mkdir(); shutil.copy(next((tree/'Lower_Density').glob('*.png')), own/'Seltén klasse')
    q = Quarantine(); rows = film_rows([own], SMALL, tmp_path/'squares', quarantine=q)
    assert any('small class: 1 image of Seltén klasse' in x['reason'] for x in q.notes)
    with pytest.raises(ValueError, match='all films are in one part'): train_films(SMALL, rows, core.Run('own', tmp_path), say=quiet)


def test_one_class_is_not_enough(tree, tmp_path):
    import shutil
    shutil.copytree(tree/'Normal', tmp_path/'own'/'Normal')
    with pytest.raises(ValueError, match='two or more'): film_rows([tmp_path/'own'], SMALL, tmp_path/'squares')


def test_every_patient_is_tested_once(tree, tmp_path):
    rows = [r for r in film_rows([tree], SMALL, tmp_path/'squares') if r['label'] in ('Normal', 'Obstructive')]
    done = cross_validate(SMALL, rows, core.Run('cv', tmp_path), 2, say=quiet)
    folds = [{a['id'] for a in core.load_jsonl(f)} for f in sorted((tmp_path/'cv').glob('fold*/answers_tuned.jsonl'))]
    assert not folds[0] & folds[1] and folds[0] | folds[1] == {r['id'] for r in rows} and done['tuned'].scores['accuracy'].n == len(rows)


def test_from_samples_to_report_on_the_command_line(tmp_path, capsys):
    assert main(['lung', 'samples', str(tmp_path/'films'), '--draw', '5']) == 0
    tiny = ['--set', 'steps=2', 'batch=4', 'new_tokens=8', 'save_every=2', 'watch.every=2', 'watch.rows=8']
    assert main(['lung', 'train', str(tmp_path/'films'), '--first', '2', '--name', 'own', '--root', str(tmp_path), *tiny]) == 0
    assert (tmp_path/'own'/'report.html').exists() and 'macro-F1' in capsys.readouterr().out
    assert main(['lung', 'eval', str(tmp_path/'own'/'bundle'), str(tmp_path/'films'), '--root', str(tmp_path)]) == 0
    split, out = core.load_json(tmp_path/'own'/'split.json'), capsys.readouterr().out
    assert f"{len(split['train']) + len(split['valid'])} of 40 films were used to tune it" in out
    assert main(['lung', 'samples', str(tmp_path/'more'), '--draw', '0']) == 2 and '--draw 0' in capsys.readouterr().err


def test_seen_films_are_refused(tree, tmp_path):
    rows = film_rows([tree], SMALL, tmp_path/'squares'); core.save_json(dict(train=[Path(r['images'][0]).stem.split('_')[0] for r in rows], valid=[], test=[]), tmp_path/'split.json')
    with pytest.raises(ValueError, match='films that it has not seen'): unseen_films(rows, tmp_path/'bundle')


def test_a_film_without_a_report_gets_none_made_up(tree):
    r = dict(id='x', label='Pneumonía viral', images=['x.png'], messages=[user('Read this chest X-ray.', 1), assistant('Class: Pneumonía viral')], meta={})
    assert text_of(asked_shortly(r)['messages'][-1]) == 'Class: Pneumonía viral' and asked_shortly(r)['meta']['facts'] == []
