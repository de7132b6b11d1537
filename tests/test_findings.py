"The labeller on long and hostile texts, and the call of radeval. That package is a stand-in here: no model of it is loaded."
import re
import sys
import types

import numpy as np
import pytest

from medvlm.findings import DOMAINS, domain_findings, find, finding_measures, plain, radeval, show_findings, statements, word_lists

LONG = ['No pleural effusion. Left lower lobe consolidation is seen in the chest. ', '우측 폐에 흉수와 기흉은 관찰되지 않으며 좌하엽에 경화가 보임. ', 'a b c ', 'left ', 'effusion and ', 'no ', 'heart ', '(((', '지 ',
        '\n', '\n ', ' ', '-', 'not been ', '없', '1,2,3 ', 'cannot be ', 'no effusion left ', 'heart is ', '피부 ', '변화 ', 'a' * 50 + ' ', 'effusion', '흉수', 'past ', 'normal chest ', ', right lower lobe ', '\u0316\u0300']
HOSTILE = ['<script>alert(1)</script> 흉수', '"><img src=x onerror=alert(1)> effusion', "' onmouseover='x' 홍반", '\0effusion\0', '\ud800흉수\udfff', '\u202e effusion', 'İ effusion', '</mark>erythema</p>', '&lt; pustule', '흉\u200b수']


@pytest.mark.parametrize('piece', LONG)
@pytest.mark.parametrize('domain', DOMAINS)
def test_half_a_million_characters_are_read(piece, domain):
    "Half a million characters of anything are read to their end; what took quadratic time would not be. Seconds are in bench/long.py."
    find(piece * (500_000 // len(piece)), domain)


@pytest.mark.parametrize('text', HOSTILE)
@pytest.mark.parametrize('domain', DOMAINS)
def test_hostile_texts_are_read_and_escaped(text, domain):
    for name, s in find(text, domain).items():
        assert name in domain_findings(domain) and 0 <= s.where[0] < s.where[1] <= len(plain(text))
    page = show_findings(text, domain)
    assert set(re.findall(r'</?(\w+)', page)) <= {'p', 'mark', 'sub'} and '\0' not in page and '\u202e' not in page
    page.encode()


def test_positions_are_those_of_the_words():
    text = plain('İ Ｎｏ ｅｆｆｕｓｉｏｎ. 좌측 기흉')
    assert [text[slice(*s.where)] for _, s in statements(text, 'lung')] == ['effusion', '기흉']


@pytest.mark.parametrize('domain', DOMAINS)
def test_no_phrase_of_the_lists_is_dead(domain):
    "Every Korean phrase without signs of a regular expression finds its own finding."
    for name, entry in word_lists()[domain].items():
        for phrase in entry['ko']:
            if re.fullmatch('[가-힣 ]+', phrase): assert name in find(f'{phrase}이 있음', domain), phrase


def test_measures_add_up():
    refs, answers = ['No effusion. Left nodule.', '기흉이 있음'], ['Effusion. Left nodule.', None]
    both, single = finding_measures([find(a, 'lung') for a in answers], [find(r, 'lung') for r in refs]), [finding_measures([find(a, 'lung')], [find(r, 'lung')]) for a, r in zip(answers, refs)]
    for k, v in both.items():
        assert v.shape == (2, 2) and (v[:, 0] <= v[:, 1]).all()
        np.testing.assert_array_equal(v, np.concatenate([s[k] for s in single]))


@pytest.fixture
def stand_in(monkeypatch):
    "A module of the name `radeval` with the call of version 2.2; it counts shared words."
    calls = []

    class RadEval:
        def __init__(self, metrics=None, per_sample=False, show_progress=True): calls.append((metrics, per_sample))

        def __call__(self, refs, hyps):
            return {'bleu': [len({*r.split()} & {*h.split()}) / max(1, len(r.split())) for r, h in zip(refs, hyps)], 'labels': {'effusion': 1.}}

    module = types.ModuleType('radeval')
    module.RadEval = RadEval
    monkeypatch.setitem(sys.modules, 'radeval', module)
    return calls


def test_radeval_gives_rows_and_their_mean(stand_in):
    got = radeval(['No effusion .', 'Left nodule .'], ['No effusion .', None], ('bleu',), groups=['a', 'b'])
    assert stand_in == [(['bleu'], True)] and list(got) == ['bleu']
    assert got['bleu']['rows'].tolist() == [1., 0.] and got['bleu']['score'].value == .5 and got['bleu']['score'].n == 2


def test_radeval_is_not_reached_by_a_korean_report(stand_in):
    with pytest.raises(ValueError, match="row 0: the answer holds '흉', but 'bleu' reads English only"):
        radeval(['No effusion.'], ['흉수 없음'], ['bleu'])
    with pytest.raises(ValueError, match="metric 'bluert'"): radeval(['a'], ['b'], 'bluert')
    assert stand_in == []
