"Every value in its cell on many pages: too many for a notebook."

import numpy as np
import pytest

from medvlm.forms import LAYOUTS, font_pool, lay_out, typeset


@pytest.mark.parametrize('layout', LAYOUTS)
def test_values_lie_in_their_cells(layout):
    pool, seeds, sheets = font_pool(), range(200), []
    for at in seeds[::50]:
        forms = [lay_out(seed, layout, pool)[2] | dict(rooms=True) for seed in range(at, at + 50)]
        for piece in typeset('many', dict(forms=forms), pool)[1]:
            if piece['key'] == '': sheets.append([])
            else: sheets[-1].append(piece)
    assert len(sheets) >= len(seeds)
    for sheet in sheets:
        keys = np.array([p['key'] for p in sheet])
        ink = np.array([(p['x'], p['y'], p['x'] + p['w'], p['y'] + p['h']) for p in sheet])
        room = np.array([(x, y, x + w, y + h) for x, y, w, h in (p['room'] for p in sheet)])
        outside = np.maximum(room[:, :2] - ink[:, :2], ink[:, 2:] - room[:, 2:]).max(1) > 1e-6
        assert not outside.any(), f'{keys[outside.argmax()]} leaves its cell'
        for rects in (ink, room):
            common = np.minimum(rects[:, None, 2:], rects[None, :, 2:]) - np.maximum(rects[:, None, :2], rects[None, :, :2])
            hit = (common > 1e-6).all(2) & (keys[:, None] != keys[None, :])
            assert not hit.any(), f'{keys[np.argwhere(hit)[0]]} overlap'
    assert sum(p['key'] == 'insurance' for sheet in sheets for p in sheet) == len(seeds)
