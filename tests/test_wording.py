"Wording beyond the notebook: rules files that are wrong, random texts, hostile and very long ones, letters in pieces, rewriting models that misbehave."
import random
import time
import unicodedata

import pytest

from medvlm.questions import particles
from medvlm.wording import DEFAULT, ENGLISH, KINDS, LABELS, TERMS, Rules, agree, applied, audit, edited, final_consonant, fix, foreign_words, load_rules, ordinary, save_rules, said_in, undone

PIECES = ['erythema', 'Scale', 'papules', 'the ', 'a ', 'An ', 'plaque', 'atopic dermatitis', 'atopic', 'dermatitis', 'T-zone', 't zone', '紅斑', '皮膚', 'かゆみ', 'ｓｃａｌｅ', 'mild', 'scale-like', 'papule-pustule', '-', '/', '(', ')', ' ', '  ', '\n', '.', '. ', '!', ',', '"', "'",
          '’', '*', '**', '[', ']', '（', '）', '…', '...', '가', '이', '을', '는', '로', '으로', '와', '라고', '였다', '이(가)', '(으)로', '가려움', '이마', '홍반', '인설', '볼이 붉다.', '볼이 붉다. ', '피부가 dry하다. ', '홍반한 볼이다. ', '3 mm', 'IgE', '5', '<label>', '</label>', '<summary>',
          '</summary>', '< Label >', '<lable>', '건선', 'psoriasis', '아토피 피부염', '<br>', '&lt;label&gt;', '〈', '〉', '\u0301', 'é', 'эритема', 'x', 'A', 'I', '\U0001f600', '\0', '\ufeff', ' 를 ', ' 가 ', ' 이 ', '(홍반)', '(erythema)', '홍반(erythema)', 'erythema (홍반)가', 'Erythema is present on the face. ', '```']
RULES = [DEFAULT, Rules(TERMS, {'여드릅': '여드름'}, {'볼이 붉다.': '볼이 빨갛다.', '홍반한 볼이다.': '볼이 발그레하다.', '피부가 dry하다.': '피부가 건조하다.'}), Rules({'skin': 'T존', 'T-zone': 'IgE', 'erythema': '3 mm'}), Rules()]


def texts(n, seed):
    "Texts from pieces that go badly together, half of them in the form of an answer, some with letters in pieces."
    rng = random.Random(seed)
    for _ in range(n):
        text = ''.join(rng.choice(PIECES) for _ in range(rng.randint(1, 25)))
        if rng.random() < .5: text = f"<label>{rng.choice(['건선', 'acne', '암'])}</label>\n<summary>{text}</summary>"
        if rng.random() < .2: text = unicodedata.normalize('NFD', text)
        elif rng.random() < .1: text = text[:len(text) // 2] + unicodedata.normalize('NFD', text[len(text) // 2:])
        yield text


# Rules files

@pytest.mark.parametrize('toml, what', [
    ('[terms]\n"erythema" = "scale"\n"scale" = "erythema"', 'erythema → scale → erythema goes in a circle'), ('[terms]\na = "b"\nb = "c"\nc = "d"\nd = "a"', 'a → b → c → d → a'), ('[terms]\nscale = "scale"', 'scale → scale'),
    ('[terms]\n"" = "홍반"', 'is empty'), ('[terms]\nscale = "  "', 'is empty'), ('[terms]\nscale = 3', 'no text'), ('[terms]\nUV = "자외선"\nray = "UV 광선"', "'UV' occurs inside 'UV 광선'"), ('[terms]\n"uva burn" = "화상"\nray = "UVA"', 'could complete another term'),
    ('[terms]\n"판" = "반"', 'does not begin with a foreign letter'), ('[terms]\nscale = "인설."', "holds '.'"), ('[terms]\nscale = "<b>인설"', "holds '<'"), ('[terms]\nscale = "flake"', "puts 'flake' in"), ('[labels]\n"암" = "피부암"', 'allowed is one of 건선'), ('[labels]\n"건선" = "주사"\n"주사" = "건선"', 'goes in a circle'),
    ('[sentences]\n"가다." = "나다."\n"나다." = "가다."', 'goes in a circle'), ('[sentences]\n"가다." = ""', 'is empty'), ('[sentences]\n"dry하다." = "dry하지 않다."', 'puts in tags or foreign words'), ('[sentences]\n"가다" = "나다"', 'full stop'),
    ('[words]\na = "b"', "table 'words'"), ('terms = "scale"', 'allowed is a table'), ('[terms]\nscale = 인설', 'not valid TOML'), ('[terms]\nscale = "인설"\nscale = "비늘"', 'not valid TOML'), ('[terms]\nScale = "인설"\nscale = "비늘"', 'capitals and hyphens')])
def test_a_wrong_rules_file_says_what_is_wrong(tmp_path, toml, what):
    path = tmp_path / 'rules.toml'
    path.write_text(toml + '\n', encoding='utf-8')
    with pytest.raises(ValueError) as e: load_rules(path)
    assert what in str(e.value) and 'rules.toml' in str(e.value)


def test_rules_survive_bom_crlf_and_a_round_trip(tmp_path):
    for i, rules in enumerate(RULES):
        save_rules(rules, tmp_path / f'{i}.toml')
        assert load_rules(tmp_path / f'{i}.toml') == rules
        (tmp_path / 'dos.toml').write_bytes(b'\xef\xbb\xbf' + (tmp_path / f'{i}.toml').read_bytes().replace(b'\n', b'\r\n'))
        assert load_rules(tmp_path / 'dos.toml') == rules
    (tmp_path / 'cp949.toml').write_bytes('[terms]\nscale = "인설"\n'.encode('cp949'))
    with pytest.raises(ValueError, match='not valid TOML'): load_rules(tmp_path / 'cp949.toml')
    with pytest.raises(FileNotFoundError): load_rules(tmp_path / 'none.toml')


def test_rules_cannot_be_changed_after_their_check():
    with pytest.raises(AttributeError): DEFAULT.terms = {}


# Random texts

@pytest.mark.parametrize('number', range(len(RULES)))
def test_mending_twice_changes_nothing_and_can_be_undone(number):
    rules, rows = RULES[number], [dict(id=i, label='건선', text=t) for i, t in enumerate(texts(400, number))]
    kept = [dict(r) for r in rows]
    changes = fix(rows, rules)
    assert rows == kept
    new = applied(rows, changes)
    assert rows == kept and undone(new, changes) == rows
    assert [r['text'].encode('utf-8', 'surrogatepass') for r in undone(new, changes)] == [r['text'].encode('utf-8', 'surrogatepass') for r in kept]
    assert fix(new, rules) == []
    for c in changes:
        assert edited(ordinary(c.before), c.edits) == c.after and c.diff
        pieces = c.pieces(10**6)
        assert ''.join(s for kind, s in pieces if kind != '+') == ordinary(c.before) and ''.join(s for kind, s in pieces if kind != '-') == c.after


def test_an_audit_of_random_texts_points_at_what_it_names():
    found = audit(dict(id=i, label='건선', text=t) for i, t in enumerate(texts(600, 9)))
    assert {p.kind for p in found.problems} <= set(KINDS) and found.n == 600
    for p in found.problems:
        assert 0 <= p.span[0] <= p.span[1] <= len(p.text)
        if p.kind == 'foreign word': assert p.text[slice(*p.span)] == p.what
    found.table().markdown(), found.listed(10**6)._repr_html_()


def test_no_term_is_left_but_in_english_sentences():
    rows = [dict(id=i, text=t) for i, t in enumerate(texts(4000, 5)) if not set('<&〈[') & set(t) and not ENGLISH.search(ordinary(t))]
    new = applied(rows, fix(rows))
    assert len(rows) > 300 and [r['text'] for r in new if DEFAULT.found.search(r['text'])] == []
    assert fix([dict(id=1, text='Erythema is present on the face. The cheeks are red and dry.')]) == []


# Letters in pieces

def test_nfd_and_nfc_lead_to_the_same_text():
    rng = random.Random(3)
    base = '<label>건선</label>\n<summary>이마에 erythema가 있고 scale은 두껍습니다. T-zone은 깨끗하며 papule으로 보이는 것이 있습니다.</summary>'
    want = applied([dict(id=1, text=base)], fix([dict(id=1, text=base)]))[0]['text']
    for _ in range(50):
        mixed = ''.join(unicodedata.normalize('NFD', c) if rng.random() < .5 else c for c in base)
        rows = [dict(id=1, label='건선', text=mixed)]
        changes = fix(rows)
        assert applied(rows, changes)[0]['text'] == want and undone(applied(rows, changes), changes) == rows
        assert {p.kind for p in audit(rows).problems} >= {'foreign word', 'letters in parts'} and [p.what for p in audit(rows).problems if p.kind == 'foreign word'] == ['erythema', 'scale', 'T-zone', 'papule']
    assert final_consonant(unicodedata.normalize('NFD', '인설')) == 'ㄹ' and agree(unicodedata.normalize('NFD', '홍반'), '가') == '이'


# Long and hostile texts

LONG = ['erythema가 볼에 있다. ' * 3000, '홍반이 볼에 있다. ' * 5000, '가' * 50_000, 'a' * 50_000, 'erythema ' * 6000, 'the ' * 12_500, '(' * 50_000, '()' * 25_000, '홍반(' * 16_000, 'erythema(' * 5500, 'erythema(홍반' * 4000, '-' * 50_000, 'scale-' * 8000, 'scale-' * 8000 + 'like', ' ' * 50_000, '\n' * 50_000, '. ' * 25_000,
        '<label>' * 7000, '<' * 50_000, '< label' * 7000, '&lt;' * 12_000, '*' * 50_000, '`' * 50_000, '- x\n' * 12_000, '"' * 50_000, '특별한 ' * 12_000, '전반적으로 ' * 9000, '홍반, ' * 12_000, unicodedata.normalize('NFD', '홍반 ' * 8000), 'a\u0301' * 25_000, 'I can ' * 9000, 'Erythema is ' * 4000, '紅斑' * 25_000, 'atopic ' * 7000, "scale's " * 6000, '0' * 50_000, '이다' * 25_000]


@pytest.mark.parametrize('text', LONG, ids=range(len(LONG)))
def test_fifty_thousand_characters_take_no_time(text):
    for whole, label in ((text, None), (f'<label>정상</label>\n<summary>{text}</summary>', '정상'), (f'<label>건선</label>\n<summary>x {text}', '건선')):
        rows = [dict(id=1, label=label, text=whole)]
        for rules in RULES[:2]:
            start = time.perf_counter()
            audit(rows)
            changes = fix(rows, rules)
            new = applied(rows, changes)
            assert time.perf_counter() - start < 3
        assert undone(new, changes) == rows


# Rewriting

ANSWERS = ['', None, 3, '홍반이 볼에 약하게 보입니다.', 'mild 홍반이 보입니다.', '<label>주사</label>', '죄송하지만 바꿀 수 없습니다.', '**홍반**이 볼에 약하게 보입니다.', '홍반.', '가' * 5000 + '.', '두 줄로\n나누었습니다 이렇게.', '볼이 붉다. 홍반이 약하게 보입니다.', '끝나지 않는 문장은 이렇게', unicodedata.normalize('NFD', '홍반이 볼에 약하게 보입니다.'), '[summary] 홍반이 보입니다.']


@pytest.mark.parametrize('rules', RULES[:2], ids=['terms', 'sentences'])
def test_a_rewriting_model_can_spoil_nothing(rules):
    rng = random.Random(1)
    def model(sentence, before, after, label):
        assert foreign_words(sentence) and '<' not in sentence and label in ('', *LABELS)
        if rng.random() < .1: raise TimeoutError('too slow')
        return rng.choice(ANSWERS)
    rows = [dict(id=i, label='건선', text=f'<label>건선</label>\n<summary>{t}</summary>') for i, t in enumerate(s for s in texts(2000, 7) if not set('<>[〈〉&\u0301\0') & set(s)) if t.strip()][:300]
    changes = fix(rows, rules, model)
    new = applied(rows, changes)
    assert len(rows) > 100 and undone(new, changes) == rows and any(c.notes for c in changes) and any(e.why == 'rewrite' for c in changes for e in c.edits)
    before, after = audit(rows), audit(new)
    for kind in ('tag', 'label', 'refusal', 'unknown label'): assert after.counts[kind] <= before.counts[kind], kind
    assert all(len(foreign_words(said_in(b))) <= len(foreign_words(ordinary(said_in(a)))) for a, b in zip(rows, new))
    assert [c for c in fix(new, rules) if c.before != c.after] == []


def test_a_model_that_fails_leaves_a_note_and_the_batch_goes_on():
    rows = [dict(id=i, label='건선', text=f'<label>건선</label>\n<summary>{s}</summary>') for i, s in enumerate(('mild한 erythema가 볼에 있다.', '피부가 dry하다.'))]
    def model(sentence, *rest):
        if 'mild' in sentence: raise RuntimeError('quota for sk-' + 'a' * 30)
        return '피부가 건조하다.'
    first, second = fix(rows, rewrite=model)
    assert first.after.endswith('mild한 홍반이 볼에 있다.</summary>') and first.notes == ["kept 'mild한 홍반이 볼에 있다.': RuntimeError: quota for ***"]
    assert second.after.endswith('피부가 건조하다.</summary>') and not second.left


# One notion of the end of a word

@pytest.mark.parametrize('pair', ['은(는)', '이(가)', '을(를)'])
def test_agreement_is_that_of_the_questions(pair):
    for word in (*set(TERMS.values()), *'0123456789', *'ABCDEFGHIJKLMNOPQRSTUVWXYZ', '홍반(erythema)', '농포(pustule)', 'MRI', 'IgA', 'IgM'):
        if word[-1] == ')' or word.isalnum() or ' ' in word: assert particles(word + pair) == word + agree(word, pair[0]), word
