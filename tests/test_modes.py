"Every combination of full, LoRA and frozen for the three parts trains the parts that it says and no other."
from itertools import product
import pytest

MODES = [m for m in product(('full', 'lora', 'frozen'), repeat=3) if set(m) != {'frozen'}]

@pytest.fixture(scope='module')
def setting(tmp_path_factory):
    "A tiny base, coded rows and a function that makes two steps of a plan."
    import random
    import torch
    from PIL import Image
    from medvlm import core
    from medvlm.batches import Coder, Collator, encode_rows
    from medvlm.callbacks import moved_shares, weight_marks
    from medvlm.data import assistant, row, user
    from medvlm.losses import answer_loss
    from medvlm.models import ImagePolicy, load, param_groups, prepare
    from medvlm.small import cell_text, draw_line, save_small, small_vlm
    torch.set_num_threads(1)
    tmp, policy = tmp_path_factory.mktemp('modes'), ImagePolicy(784, 64*784)
    save_small(*small_vlm(hidden=48, layers=1, vision_layers=1, heads=2), tmp/'base', {})
    rng, fonts = random.Random(0), sorted(str(p) for p in core.korean_font().parent.glob('*.ttf'))
    texts = [cell_text(rng, 4) for _ in range(4)]
    rows = [row(f'r{i}', [Image.fromarray(draw_line(rng, [t], fonts)).convert('RGB')], [user('read', 1), assistant(t)]) for i, t in enumerate(texts)]
    def moved(tuning, quant='none'):
        "Parts of which something moved in two steps."
        core.seed_all(0)
        model, processor = load(str(tmp/'base'), policy, quant=quant)
        coder = Coder(processor, policy)
        batch, model = Collator(coder)(list(encode_rows(rows, coder))), prepare(model, tuning).train()
        before, frozen = weight_marks(model, True), weight_marks(model, False)
        opt = torch.optim.AdamW(param_groups(model, tuning))
        for _ in range(2): answer_loss(model, batch)[0].backward(); opt.step(); opt.zero_grad()
        assert all(torch.equal(v, frozen[n]) for n, v in weight_marks(model, False).items())
        return {p for p, share in moved_shares(model, before).items() if share > .3}
    return moved

def plan(modes):
    "A tuning with these modes."
    from medvlm.models import Part, Tuning
    return Tuning(*[Part(m, 0. if m == 'frozen' else 1e-3, dropout=0., targets=('all-linear',)) for m in modes])

@pytest.mark.parametrize('modes', MODES, ids='-'.join)
def test_mode(setting, modes):
    assert setting(plan(modes)) == {p for p, m in zip(('vision', 'merger', 'llm'), modes) if m != 'frozen'}

@pytest.mark.parametrize('modes', [('lora', 'lora', 'lora'), ('full', 'full', 'lora'), ('frozen', 'full', 'lora')], ids='-'.join)
def test_on_four_bits(setting, modes):
    assert setting(plan(modes), 'nf4') == {p for p, m in zip(('vision', 'merger', 'llm'), modes) if m != 'frozen'}
