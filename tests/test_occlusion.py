"Places are covered in every kind of image, maps have the shape of the grid and are zero where nothing is hidden, scores are those of the model itself, shares add up."
import numpy as np
import pytest
from PIL import Image

from medvlm.data import assistant, row, user
from medvlm.occlusion import (HOW, answer_score, box_measures, boxed_films, cell_shares, covered, even_map, inside_share, map_likeness, marked, neutral, occlusion_figure, occlusion_map, places, said_span,
                              span_tokens, spread)
from medvlm.stats import score_all

GREY = np.random.default_rng(0).integers(0, 255, (42, 56), np.uint8)
IMAGES = {'L': Image.fromarray(GREY), 'I;16': Image.fromarray(GREY.astype(np.uint16)*257), 'I;16B': Image.frombytes('I;16B', (56, 42), GREY.astype('>u2').tobytes()),
          'RGB': Image.fromarray(np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1))}


@pytest.fixture(scope='module')
def reader():
    "A tiny model with the real architecture, and its processor."
    import torch
    from medvlm.models import ImagePolicy
    from medvlm.small import small_vlm
    torch.set_num_threads(1)
    model, processor = small_vlm(hidden=48, layers=2, vision_layers=2, heads=2)
    return model.eval(), ImagePolicy(784, 64*784).apply(processor)


def film_row(said='Class: Fluid\nSide: left', label='Fluid', image=None):
    "A row about a grey picture."
    return row('film', [image or IMAGES['L']], [user('Class?', 1), assistant(said)], label, meta=dict(side='left', box=(30, 20, 50, 40)))


@pytest.mark.parametrize('mode', IMAGES)
@pytest.mark.parametrize('how', HOW)
def test_only_the_place_changes(mode, how):
    image, box = IMAGES[mode], (3, 5, 20, 41)
    was, now = np.asarray(image), np.asarray(covered(image, box, how))
    assert (now.shape, now.dtype, covered(image, box, how).mode) == (was.shape, was.dtype, image.mode) == (was.shape, was.dtype, mode)
    place = np.zeros(was.shape[:2], bool)
    place[5:41, 3:20] = True
    assert (now[~place] == was[~place]).all() and (now[place] == np.asarray(neutral(image, how))[place]).all() and (now[place] != was[place]).any()
    assert now.max() <= was.max() and now.min() >= was.min()


def test_sixteen_bits_are_covered_as_eight():
    eight, deep = (np.asarray(covered(IMAGES[m], (0, 0, 20, 20))).astype(int) for m in ('L', 'I;16'))
    assert abs(deep/257 - eight).max() < .51


def test_the_whole_image_may_be_covered():
    assert len(np.unique(np.asarray(covered(IMAGES['L'], (0, 0, 56, 42))))) == 1


@pytest.mark.parametrize('box', [(-1, 0, 5, 5), (0, 0, 57, 5), (0, 0, 5, 43), (5, 5, 5, 9), (9, 5, 5, 9)])
def test_boxes_outside_are_refused(box):
    with pytest.raises(ValueError, match='cut the box to the image'): covered(IMAGES['L'], box)
    with pytest.raises(ValueError, match='cut the box to the image'): cell_shares(box, (56, 42), (6, 8))


@pytest.mark.parametrize('mode', ['P', 'RGBA', 'F', '1'])
def test_other_modes_are_refused(mode):
    with pytest.raises(ValueError, match=f"mode '{mode}'; allowed are L, RGB"): neutral(IMAGES['RGB'].convert(mode) if mode != 'F' else IMAGES['L'].convert('F'))


def test_a_way_that_is_none_is_refused():
    with pytest.raises(ValueError, match="allowed are \\('median', 'blur'\\)"): covered(IMAGES['L'], (0, 0, 5, 5), 'zero')


@pytest.mark.parametrize('mode', ['L', 'RGB', 'I;16'])
@pytest.mark.parametrize('how', HOW)
def test_covering_with_the_same_changes_nothing(reader, mode, how):
    image = Image.fromarray(np.full_like(np.asarray(IMAGES[mode]), 90))
    drops, score = occlusion_map(*reader, film_row(image=image), how=how)
    assert abs(drops).max() < 1e-4 and score < 0


@pytest.mark.parametrize('size,patch,stride,shape', [((56, 42), .25, .125, (8, 11)), ((42, 56), .5, .25, (5, 4)), ((56, 56), .25, .25, (4, 4)), ((56, 112), .5, .5, (4, 2))])
def test_maps_have_the_shape_of_the_grid(reader, size, patch, stride, shape):
    drops, _ = occlusion_map(*reader, film_row(image=IMAGES['L'].resize(size)), patch=patch, stride=stride)
    assert drops.shape == shape and np.isfinite(drops).all() and abs(drops).max() > 0


def test_places_leave_nothing_out():
    for size in ((56, 42), (113, 97), (640, 480)):
        boxes, cells = places(size)
        seen = np.zeros(size[::-1], bool)
        for x0, y0, x1, y1 in boxes: seen[y0:y1, x0:x1] = True
        assert seen.all() and cells.any(0).all() and len(boxes) == len(cells)


@pytest.mark.parametrize('patch,stride', [(.25, .1), (.1, .25), (.25, 0.), (.6, .3), (.25, -.125), (0., 0.)])
def test_grids_that_are_none_are_refused(patch, stride):
    with pytest.raises(ValueError, match='take patch 0.25 and stride 0.125'): places((56, 42), patch, stride)


def test_scores_are_those_of_the_model(reader):
    import torch
    model, processor = reader
    r = film_row()
    text, at = span_tokens(processor, r, words='left')
    given = processor(text=[text], images=r['images'], return_tensors='pt')
    with torch.no_grad(): chances = model(**given).logits.double().log_softmax(-1)[0]
    ids = given['input_ids'][0]
    assert processor.tokenizer.decode(ids[at]) == 'left'
    wanted = sum(float(chances[i - 1, ids[i]]) for i in (len(ids) + a for a in at))
    assert answer_score(model, processor, r, r['images'], words='left')[0] == pytest.approx(wanted, abs=1e-3)


def test_scores_do_not_follow_the_batch(reader):
    images = [covered(IMAGES['RGB'], b) for b in places((56, 42))[0][:7]]
    all_at_once, one_by_one = (answer_score(*reader, film_row(), images, batch=n) for n in (7, 1))
    assert np.allclose(all_at_once, one_by_one, atol=1e-4) and len(set(all_at_once.round(6))) > 1
    sizes = [IMAGES['L'], IMAGES['L'].resize((112, 84))]
    assert np.allclose(answer_score(*reader, film_row(), sizes), [answer_score(*reader, film_row(), [im])[0] for im in sizes], atol=1e-4)      # padded on the left


def test_scores_of_parts_add_up(reader):
    parts = [answer_score(*reader, film_row(), [IMAGES['L']], words=w)[0] for w in ('Class: ', 'Fluid', '\nSide: ', 'left')]
    assert sum(parts) == pytest.approx(answer_score(*reader, film_row(), [IMAGES['L']], words='Class: Fluid\nSide: left')[0], abs=1e-3)


def test_labels_are_found_in_hangul(reader):
    _, at = span_tokens(reader[1], film_row('분류: 건선', '건선'))
    assert len(at) == 6 and at == list(range(at[0], at[0] + 6))                                        # six letters of two syllables


@pytest.mark.parametrize('label,words,says', [('Clear', None, "label 'Clear' is not declared in the answer 'Class: Fluid.*; allowed is an answer with a line such as 'Class: Clear'; correct one of the two"),
                                              (None, None, 'label None is not declared'), ('Fluid', 'right', "words 'right' stand 0 times.*; allowed are words that stand there once; give"),
                                              ('Fluid', 'l', "words 'l' stand 3 times"), ('Fluid', '', "words '' stand 0 times")])
def test_what_the_answer_does_not_say_is_refused(reader, label, words, says):
    with pytest.raises(ValueError, match=says): occlusion_map(*reader, film_row(label=label), words=words)
    with pytest.raises(ValueError, match=says): said_span('Class: Fluid\nSide: left', label, words)


def test_rows_without_an_answer_or_with_two_images_are_refused(reader):
    r = film_row()
    with pytest.raises(ValueError, match='give `answer`'): occlusion_map(*reader, dict(r, messages=r['messages'][:1]))
    assert occlusion_map(*reader, dict(r, messages=r['messages'][:1]), answer='Class: Fluid\nSide: left')[1] == pytest.approx(occlusion_map(*reader, r)[1], abs=1e-4)
    with pytest.raises(ValueError, match='has 2 images; allowed is one'): occlusion_map(*reader, dict(r, images=r['images']*2))
    with pytest.raises(ValueError, match='unreadable image'): occlusion_map(*reader, r, b'no image')


def test_shares_add_up():
    drops = np.random.default_rng(1).normal(size=(6, 8))
    left, right = ((0, 0, 21, 42), (21, 0, 56, 42))
    assert inside_share(drops, left, (56, 42)) + inside_share(drops, right, (56, 42)) == pytest.approx(1)
    assert inside_share(drops, (0, 0, 56, 42), (56, 42)) == pytest.approx(1) and inside_share(-abs(drops), left, (56, 42)) == 0
    assert cell_shares((5, 7, 30, 29), (56, 42), (6, 8)).mean() == pytest.approx(25*22/56/42)
    assert inside_share(np.ones((6, 8)), (5, 7, 30, 29), (56, 42)) == pytest.approx(25*22/56/42)


def test_spread_keeps_what_is_the_same_everywhere():
    _, cells = places((56, 42))
    assert np.allclose(spread(np.full(len(cells), 3.), cells), 3)


def test_even_maps_lie_around_their_box():
    even = even_map((28, 28, 56, 56), (112, 112))
    assert even.shape == (8, 8) and np.unravel_index(even.argmax(), even.shape) in {(i, j) for i in (2, 3) for j in (2, 3)} and (even[:, 6:] == 0).all() and 0 < even.max() <= 1


def test_measures_of_maps_that_are_known():
    rows = [dict(film_row(image=Image.new('L', (112, 112), 90)), id=str(i), group=str(i), meta=dict(box=(0, 56, 28, 84))) for i in range(4)]
    lit = np.zeros((8, 8)); lit[4:6, :2] = 1                                                           # wholly in the box
    scores = {k: v.value for k, v in score_all(box_measures(rows, [lit]*4)).items()}
    assert scores['in the box'] == 1 and scores['in its mirror image'] == 0 and scores['area of the box'] == pytest.approx(1/16) and scores['box less area'] == pytest.approx(15/16)
    assert score_all(box_measures(rows, [lit[:, ::-1]]*4))['in its mirror image'].value == 1
    with pytest.raises(ValueError, match='allowed are as many'): box_measures(rows, [lit])
    with pytest.raises(ValueError, match='leave out the others'): box_measures([dict(rows[0], meta={})], [lit])


def test_likeness():
    a = np.random.default_rng(2).normal(size=(8, 8))
    assert [round(map_likeness(a, b), 9) for b in (a, a**3, -a, a*0)] == [1, 1, -1, 0]
    with pytest.raises(ValueError, match='with the same patches'): map_likeness(a, a[:4])


def test_films_have_their_finding_where_the_box_is():
    rows = boxed_films(3, 7, side=True)
    assert len({r['group'] for r in rows}) == 6 and [r['meta']['box'] is None for r in rows] == [True]*3 + [False]*3
    assert [r['images'][0].tobytes() for r in rows] == [r['images'][0].tobytes() for r in boxed_films(3, 7)]
    bright = np.asarray(rows[4]['images'][0]).astype(float)
    x0, y0, x1, y1 = rows[4]['meta']['box']
    assert bright[y0:y1, x0:x1].mean() > bright[:, ::-1][y0:y1, x0:x1].mean()                          # fluid is brighter than the lung of the other side
    assert (np.asarray(marked(rows[0]['images'][0])) != np.asarray(rows[0]['images'][0])).mean() <= 144/112**2


def test_figure_takes_films_of_any_kind():
    drops = np.linspace(-1, 2, 48).reshape(6, 8)
    fig = occlusion_figure(list(IMAGES.values()), dict(a=[drops]*4, b=[drops*0]*4), list(IMAGES), [(1, 2, 9, 9), None, None, None], 'n=4')
    fig.draw_without_rendering()
    assert len(fig.axes) == 14 and [len(ax.patches) for ax in fig.axes[:4]] == [1, 0, 0, 0]
    with pytest.raises(ValueError, match='allowed is a map for each film'): occlusion_figure(list(IMAGES.values()), dict(a=[drops]), list(IMAGES))
