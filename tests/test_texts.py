"Text metrics against their reference implementations on 1,000 generated pairs, and on texts that break metrics."
import random

import jiwer
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from medvlm.stats import score_all
from medvlm.texts import LONGEST, Tokens, bleu_of, char_errors, chrf_of, corpus_counts, normalise, rouge_l, rouge_n, text_measures, tokens, word_errors

SYLLABLES = '정상비흉부폐렴결절수관찰됩니다않습우좌하상엽은는이가을를 .,()0123456789mg'
WORDS = 'the lungs are clear no effusion seen left right lower lobe 0.5 mg normal opacity with without'.split()


def pairs(n=1000, seed=0):
    "Answer and reference: Korean, English or mixed; equal, near, far or empty."
    rng, out = random.Random(seed), []
    for i in range(n):
        korean = ''.join(rng.choice(SYLLABLES) for _ in range(rng.randrange(1, 60)))
        english = ' '.join(rng.choice(WORDS) for _ in range(rng.randrange(1, 25)))
        ref = normalise((korean, english, f'{english} {korean}')[i % 3]) or 'x'
        pred = ''.join(c for c in ref if rng.random() > rng.choice((0, .1, .5))) if rng.random() < .8 else ''.join(rng.choice(SYLLABLES) for _ in range(rng.randrange(0, 40)))
        out.append((normalise(pred), ref))
    return out


def test_error_rates_are_jiwers():
    for pred, ref in pairs():
        c, w = jiwer.process_characters(ref, pred), jiwer.process_words(ref, pred)
        errors, n = char_errors(pred, ref)
        assert errors / n == pytest.approx(c.cer, abs=1e-9)
        errors, n = word_errors(pred, ref)
        assert errors / n == pytest.approx(w.wer, abs=1e-9)


def test_corpus_error_rate_is_jiwers():
    preds, refs = map(list, zip(*pairs()))
    ours = text_measures(preds, refs, 'char', ('CER', 'WER'))
    assert ours['CER'].value == pytest.approx(jiwer.cer(refs, preds), abs=1e-9)
    assert ours['WER'].value == pytest.approx(jiwer.wer(refs, preds), abs=1e-9)


@pytest.mark.parametrize('by', ['char', 'word'])
def test_rouge_is_rouge_scores(by):
    reference = RougeScorer(['rouge1', 'rouge2', 'rougeL'], tokenizer=Tokens(by))
    ours = dict(rouge1=rouge_n(1, by), rouge2=rouge_n(2, by), rougeL=rouge_l(by))
    for pred, ref in pairs():
        theirs = reference.score(ref, pred)
        for k, f in ours.items(): assert f(pred, ref) == pytest.approx(theirs[k].fmeasure, abs=1e-9)


@pytest.mark.parametrize('by', ['char', 'word'])
def test_bleu_is_sacrebleus(by):
    cut = lambda t: ' '.join(tokens(t, by))
    metric, count = BLEU(tokenize='none'), corpus_counts('BLEU', by)
    for i in range(1000):
        some = pairs(3, seed=i)
        preds, refs = map(list, zip(*some))
        ours = bleu_of(np.sum([count(p, r) for p, r in some], 0))
        assert float(ours) == pytest.approx(metric.corpus_score([cut(p) for p in preds], [[cut(r) for r in refs]]).score / 100, abs=1e-9)


def test_chrf_is_sacrebleus():
    metric, count = CHRF(), corpus_counts('chrF')
    for i in range(1000):
        some = pairs(3, seed=i)
        preds, refs = map(list, zip(*some))
        ours = chrf_of(np.sum([count(p, r) for p, r in some], 0))
        assert float(ours) == pytest.approx(metric.corpus_score(preds, [refs]).score / 100, abs=1e-9)


@pytest.mark.parametrize('answer', ['', None, '\ud800\udfff broken', '\0\0', 'ﷺ' * 50, '정상 normal 正常', 'a' * 1_000_000, '가' * 1_000_000, '\n' * 1000, '👩‍⚕️' * 300])
def test_any_answer_is_scored(answer):
    for ref in ('정상 흉부 방사선 사진입니다.', 'Normal chest radiograph.', '胸部未见异常。'):
        found = text_measures([answer, ref], [ref, ref])
        for s in score_all(found, n_boot=50).values(): assert np.isfinite(s.value)
        assert found['exact match'].value == .5


def test_long_answers_are_cut_at_the_limit():
    ref = '정상 소견입니다.'
    assert text_measures([ref + '가' * 10**6], [ref])['CER'].value == (LONGEST + 1 - len(ref)) / len(ref)
    assert text_measures(['y' * LONGEST + 'garbage'], ['y' * LONGEST])['exact match'].value == 0
