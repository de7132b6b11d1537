"Real form pages, where they are there: each page is found, cut into lines, and its reference read."
from pathlib import Path
import pytest

RX = Path(__file__).resolve().parents[1].parent/'shared'/'data'/'rx'
pytestmark = pytest.mark.skipif(not RX.is_dir(), reason='the real form pages are not beside the checkout')

def test_references_and_lines():
    from medvlm.data import Quarantine
    from medvlm.sheets import page_strips
    from medvlm.qwen_ocr import own_rows, reference
    q = Quarantine()
    pages, other = own_rows(RX/'rows.json', RX/'images', q)
    assert (len(pages), other, len(q)) == (120, 16, 0)
    clean = [p for p in pages if 'aug' not in p['id']]
    assert len(clean) == 40
    for p in clean:
        ref = reference(p)
        assert {'patient_name', 'patient_rrn', 'issue_date', 'disease_codes', 'drugs'} <= ref.keys()
        assert all({'drug_name', 'dose', 'freq', 'days'} == d.keys() for d in ref['drugs']), p['id']
    for p in clean[:5] + [x for x in pages if x['id'].endswith('aug2')][:3]:
        strips, sheet = page_strips(p['images'][0])
        assert 20 <= len(strips) <= 70 and all(s.height == 28 for s in strips)
