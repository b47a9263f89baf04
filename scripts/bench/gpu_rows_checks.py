"""The checks of gpu_rows.py: every row kernel against PyTorch in fp64."""

import itertools
import math
import time

import torch

import osler_cuda_rows as osler
from gpu_rows_references import (BF16, FP16, FP32, FP64, SHORT, TOLERANCE, cross_entropy_reference,
                                 gate_reference, norm_reference, randn, rope_reference,
                                 rope_tables, unaligned)


class Checks:
    def __init__(self):
        self.failed, self.count, self.worst = 0, 0, {}
        self.begin = time.time()

    def equal(self, name, case, got, want, tolerance, size=None):
        """‖got − want‖ ≤ tolerance · ‖size‖; size: want, or its sums at random signs."""
        self.count += 1
        got, want = got.double(), want.double()
        missing = int(torch.isnan(got).sum()) - int(torch.isnan(want).sum())
        if got.numel() < 64:  # no average of many errors
            tolerance = 3 * tolerance
        difference = torch.linalg.vector_norm((got - want).flatten())
        size = torch.linalg.vector_norm((want if size is None else size).double().flatten())
        error = float(difference / size) if float(size) > 0 else float(difference)
        good = missing == 0 and got.shape == want.shape and (error <= tolerance or not got.numel())
        key = name.split(':')[0]
        self.worst[key, tolerance] = max(self.worst.get((key, tolerance), (0, '')),
                                         (error, f'{name} {case}'))
        if not good:
            self.failed += 1
            print(f'FAIL {name} {case}: error {error:.2e} > {tolerance:.0e}, '
                  f'{missing} of {got.numel()} not written', flush=True)
            if got.numel():
                self.where(got, want)

    def where(self, got, want):
        got, want = (t.reshape(-1, t.shape[-1]) for t in (got, want))
        wrong = torch.nan_to_num((got - want).abs(), nan=1e9)
        rows, columns = wrong.amax(1), wrong.amax(0)
        print(f'     worst rows {rows.topk(min(4, len(rows))).indices.tolist()} of {len(rows)}, '
              f'columns {columns.topk(min(6, len(columns))).indices.tolist()} of {len(columns)}; '
              f'got {got[rows.argmax(), columns.argmax()]:.5g} '
              f'want {want[rows.argmax(), columns.argmax()]:.5g}', flush=True)

    def same_bits(self, name, make, repeats=100):
        self.count += 1  # make() gives the tensors of a fresh run
        first = [t.clone() for t in make()]
        unequal = 0
        for _ in range(repeats):
            unequal += not all(torch.equal(a.view(torch.uint8), b.contiguous().view(torch.uint8))
                               for a, b in zip(first, make()))
        if unequal:
            self.failed += 1
            print(f'FAIL {name}: {unequal} of {repeats} repeats differ', flush=True)

    def report(self):
        torch.cuda.synchronize()
        for (name, tolerance), (error, case) in sorted(self.worst.items()):
            print(f'  {name:20s} worst {error:.2e} of {tolerance:.0e}  ({case})')
        print(f'{self.count} checks, {self.failed} failed, {time.time() - self.begin:.1f} s')


def check_rms_norm(checks):
    shapes = [(0, 64), (1, 8), (3, 7), (5, 1001), (33, 1152), (257, 2560), (19, 4096), (7, 5376),
              (3, 16384), (2, 16381), (1000, 256), (2, 3)]
    for (rows, width), dtype, style in itertools.product(shapes, TOLERANCE,
                                                         (osler.GEMMA, osler.PLAIN)):
        weight_dtypes = {dtype, FP32} if width == 2560 else {dtype}
        for weight_dtype in weight_dtypes:
            check_one_rms_norm(checks, rows, width, dtype, style, weight_dtype)


def check_one_rms_norm(checks, rows, width, dtype, style, weight_dtype):
    case = f'[{rows},{width}] {SHORT[dtype]} style {style} weight {SHORT[weight_dtype]}'
    tolerance = TOLERANCE[dtype]
    x, residual, grad, grad_sum = (randn(rows, width, dtype=dtype) for _ in range(4))
    weight = (0.3 * randn(width)).to(weight_dtype)
    if width == 1152:
        x = unaligned(x)
    out = osler.rms_norm_forward(x, weight, style=style)()
    checks.equal('rms_norm', case, out.y, norm_reference(x, weight, style), tolerance)
    added = osler.rms_norm_forward(x, weight, style=style, residual=residual, keep_sum=True)()
    total = (x.float() + residual.float()).to(dtype)
    checks.equal('rms_norm:sum', case, added.sum, total, 0)
    checks.equal('rms_norm:add before', case, added.y, norm_reference(total, weight, style),
                 tolerance)
    after = osler.rms_norm_forward(x, weight, style=style, residual=residual)()
    checks.equal('rms_norm:add after', case, after.y,
                 residual.double() + norm_reference(x, weight, style), tolerance)

    leaves = [x.double().requires_grad_(), weight.double().requires_grad_()]
    y = norm_reference(*leaves, style)
    want_x, want_weight = torch.autograd.grad(y, leaves, grad.double())
    back = osler.rms_norm_backward(grad, x, weight, out.inverse_rms, style)()
    checks.equal('rms_norm_backward', case, back.grad_x, want_x, tolerance)
    terms = norm_reference(x, 0 * weight, osler.GEMMA) * grad.double()
    checks.equal('rms_norm_backward:weight', case, back.grad_weight, want_weight,
                 tolerance if style == osler.PLAIN else 3e-6, terms.square().sum(0).sqrt())
    back = osler.rms_norm_backward(grad, x, weight, out.inverse_rms, style, grad_sum=grad_sum,
                                   weight_gradient=False)()
    checks.equal('rms_norm_backward:sum', case, back.grad_x, want_x + grad_sum.double(),
                 tolerance)


def check_norm_rope(checks):
    shapes = [(0, 4, 64), (1, 1, 8), (5, 3, 64), (33, 8, 80), (17, 5, 72), (129, 8, 128),
              (65, 4, 256), (9, 1, 256), (7, 3, 512), (300, 12, 256), (3, 2, 2), (4, 2, 34)]
    for shape, dtype, style in itertools.product(shapes, TOLERANCE, (osler.GEMMA, osler.PLAIN)):
        check_one_norm_rope(checks, shape, dtype, style)


def check_one_norm_rope(checks, shape, dtype, style):
    tokens, heads, width = shape
    case = f'{list(shape)} {SHORT[dtype]} style {style}'
    tolerance = TOLERANCE[dtype]  # heads stand in a wider row, and as [H, T, D] for one shape
    x = randn(tokens, heads + 3, width, dtype=dtype)[:, 1:heads + 1]
    if shape == (65, 4, 256):
        x = randn(heads, tokens, width, dtype=dtype).transpose(0, 1)
    grad = randn(tokens, 2 * heads, width, dtype=dtype)[:, heads:]
    weight = (0.3 * randn(width)).to(dtype)
    cos, sin = rope_tables(tokens, width)
    cos_d, sin_d = cos.to(dtype).double(), sin.to(dtype).double()
    out = osler.norm_rope_forward(x, cos, sin)()
    checks.equal('rope', case, out.y, rope_reference(x.double(), cos_d, sin_d), tolerance)
    out = osler.norm_rope_forward(grad, cos, sin, direction=-1)()
    checks.equal('rope:back', case, out.y, rope_reference(grad.double(), cos_d, -sin_d), tolerance)

    leaves = [x.double().requires_grad_(), weight.double().requires_grad_()]
    y = rope_reference(norm_reference(*leaves, style), cos_d, sin_d)
    want_x, want_weight = torch.autograd.grad(y, leaves, grad.double())
    out = osler.norm_rope_forward(x, cos, sin, weight, style=style)()
    checks.equal('norm_rope', case, out.y, y.detach(), tolerance)
    back = osler.norm_rope_backward(grad, x, cos, sin, weight, out.inverse_rms, style)()
    checks.equal('norm_rope_backward', case, back.grad_x, want_x, tolerance)
    terms = (norm_reference(x, 0 * weight, osler.GEMMA)
             * rope_reference(grad.double(), cos_d, -sin_d))
    checks.equal('norm_rope_backward:weight', case, back.grad_weight, want_weight,
                 tolerance if style == osler.PLAIN else 3e-6, terms.square().sum((0, 1)).sqrt())
    in_place = x.clone()
    osler.norm_rope_forward(in_place, cos, sin, weight, style=style, y=in_place)()
    checks.equal('norm_rope:in place', case, in_place, y.detach(), tolerance)


def check_gated(checks):
    shapes = [(0, 64), (1, 1), (3, 7), (5, 1001), (33, 6912), (129, 10240), (2, 16384), (700, 24)]
    for (rows, width), dtype, kind, fused in itertools.product(
            shapes, TOLERANCE, (osler.GELU_TANH, osler.SILU), (False, True)):
        case = f'[{rows},{width}] {SHORT[dtype]} kind {kind} fused {fused}'
        tolerance = TOLERANCE[dtype]
        both, grads = (3 * randn(rows, 2 * width, dtype=dtype) for _ in range(2))
        gate, up = both[:, :width], both[:, width:]
        if not fused:
            gate, up = gate.contiguous(), up.contiguous()
        grad = randn(rows, width, dtype=dtype)
        leaves = [gate.double().requires_grad_(), up.double().requires_grad_()]
        y = gate_reference(*leaves, kind)
        want_gate, want_up = torch.autograd.grad(y, leaves, grad.double())
        out = osler.gated_forward(gate, up, kind)()
        checks.equal('gated', case, out.y, y.detach(), tolerance)
        back = osler.gated_backward(grad, gate, up, kind,
                                    grads[:, :width] if fused else None,
                                    grads[:, width:] if fused else None)()
        checks.equal('gated_backward:gate', case, back.grad_gate, want_gate, tolerance)
        checks.equal('gated_backward:up', case, back.grad_up, want_up, tolerance)


def check_cross_entropy(checks):
    shapes = [(1, 1), (3, 7), (5, 1000), (6, 1001), (9, 32000), (5, 50257), (4, 128256),
              (3, 151936), (4, 262144), (4, 262208), (2, 147464)]
    for (rows, width), dtype, soft_cap in itertools.product(shapes, TOLERANCE, (0.0, 2.0, 30.0)):
        case = f'[{rows},{width}] {SHORT[dtype]} cap {soft_cap}'
        logits = (4 * randn(rows, width)).to(dtype)
        if width > 8:
            logits[0, 3] = 60  # far above the rest
        targets = torch.randint(width, (rows,), device='cuda')
        if rows > 2:
            targets[1] = -100
        scale, exact = 0.37, 3e-5 if soft_cap else 1e-5
        loss, gradient, top, total, target = cross_entropy_reference(logits, targets, soft_cap,
                                                                     scale)
        here = targets >= 0
        separate = osler.cross_entropy(logits.clone(), targets, '_terms', soft_cap=soft_cap)()
        # An error of z counts as such, as e^z does: not beside a z near zero.
        wanted = {'max': top + 1, 'sum': total, 'target': target + 1, 'loss': loss + 1}
        for name, want in wanted.items():
            got = getattr(separate, name) + (name != 'sum')
            checks.equal(f'cross_entropy:{name}', case + ' terms', got, want, exact)
        terms = {name: getattr(separate, name) for name in ('max', 'sum', 'target')}
        second = osler.cross_entropy(separate.logits, targets, '_gradient', soft_cap=soft_cap,
                                     scale=scale, terms=terms)()
        tolerance = max(TOLERANCE[dtype], exact)
        checks.equal('cross_entropy:gradient', case, second.logits, gradient, tolerance)
        whole = osler.cross_entropy(logits.clone(), targets, soft_cap=soft_cap, scale=scale)()
        for name, want in wanted.items():
            got = getattr(whole, name) + (name != 'sum')
            checks.equal(f'cross_entropy:{name}', case + ' whole', got[here], want[here], exact)
        checks.equal('cross_entropy:loss', case + ' none', whole.loss[~here], loss[~here], 0)
        checks.equal('cross_entropy:gradient', case + ' whole', whole.logits, gradient, tolerance)
        check_slices(checks, case, logits, targets, soft_cap, scale, gradient)


def check_slices(checks, case, logits, targets, soft_cap, scale, gradient):
    width = logits.shape[1]
    cut = width // 3
    if cut == 0:
        return
    parts = [(0, logits[:, :cut].contiguous()), (cut, logits[:, cut:].contiguous())]
    terms = [osler.cross_entropy(z, targets, '_terms', begin, soft_cap)() for begin, z in parts]
    top = torch.maximum(terms[0].max, terms[1].max)
    whole = {'max': top, 'sum': sum(t.sum * torch.exp(t.max - top) for t in terms),
             'target': terms[0].target + terms[1].target}
    for begin, z in parts:
        osler.cross_entropy(z, targets, '_gradient', begin, soft_cap, scale, whole)()
    checks.equal('cross_entropy:slices', case, torch.cat([z for _, z in parts], 1), gradient,
                 max(TOLERANCE[logits.dtype], 3e-5))


def check_adamw(checks):
    counts = [0, 1, 7, 8, 16384, 16385, 100003, 3 * 16384 + 8] + [33] * 600
    for parameter_dtype, gradient_dtype, moment_dtype in itertools.product(
            (None, BF16, FP16), (FP32, BF16, FP16), (FP32, BF16)):
        case = (f'parameter {SHORT.get(parameter_dtype)} gradient {SHORT[gradient_dtype]} '
                f'moments {SHORT[moment_dtype]}')
        tensors, wanted = [], []
        few = counts if parameter_dtype != FP16 else counts[:20]
        for place, count in enumerate(few):
            make = unaligned if place == 6 else (lambda x: x)
            master, first = make(randn(count)), make((0.1 * randn(count)).to(moment_dtype))
            second = make((0.01 * randn(count).square()).to(moment_dtype))
            gradient = make(randn(count, dtype=gradient_dtype))
            parameter = None if parameter_dtype is None else make(
                osler.poisoned(count, dtype=parameter_dtype))
            tensors.append((master, parameter, first, second, gradient))
            wanted.append([t.double().clone() for t in (master, first, second, gradient)])
        device = torch.tensor([0.25], device='cuda')
        osler.adamw(tensors, 7, 1e-2, 0.1, factor=2.0, device_factor=device)()
        for (master, parameter, first, second, _), want in zip(tensors, wanted):
            p, m, v, g = want
            g = g * 0.5
            p.mul_(1 - 1e-3)
            m.lerp_(g, 1 - 0.9)
            v.mul_(0.999).addcmul_(g, g, value=1 - 0.999)
            p.addcdiv_(m, (v / (1 - 0.999**7)).sqrt().add_(1e-8), value=-1e-2 / (1 - 0.9**7))
            if len(p) == 33 and parameter_dtype is not None:
                continue
            checks.equal('adamw:master', f'{case} {len(p)}', master, p, 1e-6)
            checks.equal('adamw:exp_avg', f'{case} {len(p)}', first, m,
                         max(TOLERANCE[moment_dtype], 1e-6))
            checks.equal('adamw:exp_avg_sq', f'{case} {len(p)}', second, v,
                         max(TOLERANCE[moment_dtype], 1e-6))
            if parameter is not None:
                checks.equal('adamw:parameter', f'{case} {len(p)}', parameter,
                             master.to(parameter_dtype), 0)
    check_adamw_against_torch(checks)


def check_adamw_against_torch(checks):
    """torch._fused_adamw_ of the CPU and of CUDA, twenty steps."""
    master = randn(100003)
    ours = [master.clone(), None, torch.zeros_like(master), torch.zeros_like(master), None]
    peers = {where: [t.clone().to(where) for t in (master, ours[2], ours[3])]
             for where in ('cpu', 'cuda')}
    for step in range(1, 21):
        gradient = randn(100003)
        osler.adamw([(*ours[:4], gradient)], step, 3e-3, 0.1)()
        for where, state in peers.items():
            torch._fused_adamw_([state[0]], [gradient.to(where)], [state[1]], [state[2]], [],
                                [torch.tensor(float(step), device=where)], lr=3e-3, beta1=0.9,
                                beta2=0.999, weight_decay=0.1, eps=1e-8, amsgrad=False,
                                maximize=False)
    for where, state in peers.items():
        checks.equal('adamw:torch', f'{where} after 20 steps', ours[0], state[0].cuda(), 1e-6)
        same = float((ours[0] == state[0].cuda()).double().mean())
        print(f'  adamw: {100 * same:.1f} % of masters bit-equal to torch._fused_adamw_ on {where}')


def check_squares(checks):
    counts = [0, 1, 7, 8, 16384, 16385, 100003, 1 << 20] + [33] * 2000
    for dtype in TOLERANCE:
        tensors = [randn(count, dtype=dtype) for count in counts]
        tensors[6] = unaligned(tensors[6])
        out = osler.squares_sum(tensors)()
        want = sum(t.double().square().sum() for t in tensors)
        checks.equal('squares_sum', SHORT[dtype], out.sum, want[None], 1e-7)
        for multiplier, clip in ((1.0, 1.0), (0.5, 0.0), (1e-4, 5.0)):
            clipped = osler.clip_factor(out.sum, multiplier, clip)()
            norm = multiplier * want.sqrt()
            factor = multiplier * min(1.0, clip / float(norm + 1e-6)) if clip else multiplier
            checks.equal('clip:norm', SHORT[dtype], clipped.norm, norm[None], 1e-6)
            checks.equal('clip:factor', SHORT[dtype], clipped.factor,
                         torch.tensor([factor], device='cuda'), 1e-6)
    bad = osler.clip_factor(torch.tensor([math.nan], dtype=FP64, device='cuda'), 1.0, 1.0)()
    if not math.isnan(bad.factor.item()):
        checks.failed += 1
        print('FAIL clip: a norm that is no number gives', bad.factor.item())


def check_embedding(checks):
    cases = [(0, 8, 10), (1, 8, 10), (31, 64, 3), (32, 64, 1), (33, 100, 1), (64, 7, 2),
             (1000, 2560, 50), (4096, 1152, 100000), (777, 2050, 5), (2000, 64, 1)]
    for (tokens, width, vocabulary), dtype in itertools.product(cases, TOLERANCE):
        for weight_dtype in {dtype, FP32}:
            case = f'[{tokens},{width}] of {vocabulary} {SHORT[dtype]} into {SHORT[weight_dtype]}'
            grad = randn(tokens, width, dtype=dtype)
            ids = (torch.rand(tokens, device='cuda')**3 * vocabulary).long()
            weight = randn(vocabulary, width, dtype=weight_dtype)
            want = weight.double().index_add_(0, ids, 1.5 * grad.double())
            osler.embedding_backward(grad, ids, weight, scale=1.5)()
            checks.equal('embedding', case, weight, want, max(TOLERANCE[weight_dtype], 1e-6))
    ids = torch.randint(100, (500,), device='cuda')
    grad, weight = randn(500, 64), torch.zeros(30, 64, device='cuda')
    mine = (ids >= 40) & (ids < 70)
    want = weight.double().index_add_(0, ids[mine] - 40, grad[mine].double())
    osler.embedding_backward(grad, ids, weight, begin=40)()
    checks.equal('embedding', 'a slice of the vocabulary', weight, want, 1e-6)


def check_merge(checks):
    for rows, width in ((0, 8), (1, 1), (7, 5), (1000, 64), (333, 128), (129, 256), (5, 1000)):
        part, out = randn(rows, width), randn(rows, width)
        part_lse, lse = 5 * randn(rows), 5 * randn(rows)
        if rows > 4:
            part_lse[0] = lse[1] = part_lse[2] = lse[2] = -math.inf
            part[0], out[1], part[2], out[2] = math.nan, 0, 0, 0
        both = torch.stack((part_lse, lse)).double()
        want_lse = torch.logsumexp(both, 0)
        shares = torch.nan_to_num(torch.exp(both - want_lse), nan=0)
        want = (shares[0, :, None] * torch.nan_to_num(part.double())
                + shares[1, :, None] * out.double())
        osler.merge_attention(part, part_lse, out, lse)()
        finite = ~torch.isinf(want_lse)
        checks.equal('merge', f'[{rows},{width}]', out, want, 2e-6)
        checks.equal('merge:lse', f'[{rows},{width}]', lse[finite], want_lse[finite], 1e-6)
        if not bool(torch.isinf(lse[~finite]).all()):
            checks.failed += 1
            print('FAIL merge: an empty row has a finite lse')


def check_determinism(checks):
    x, grad, weight = randn(3001, 2560, dtype=BF16), randn(3001, 2560, dtype=BF16), randn(2560)
    out = osler.rms_norm_forward(x, weight)()

    def norm():
        back = osler.rms_norm_backward(grad, x, weight, out.inverse_rms, grad_sum=x)()
        return back.grad_x, back.grad_weight, osler.rms_norm_forward(x, weight)().y
    checks.same_bits('rms_norm', norm)

    heads, head_grad, head_weight = (randn(2049, 8, 256, dtype=BF16),
                                     randn(2049, 8, 256, dtype=BF16), randn(256))
    cos, sin = rope_tables(2049, 256)
    turned = osler.norm_rope_forward(heads, cos, sin, head_weight)()

    def rope():
        back = osler.norm_rope_backward(head_grad, heads, cos, sin, head_weight,
                                        turned.inverse_rms)()
        return (back.grad_x, back.grad_weight,
                osler.norm_rope_forward(heads, cos, sin, head_weight)().y)
    checks.same_bits('norm_rope', rope)

    logits = randn(64, 262144, dtype=BF16)
    targets = torch.randint(262144, (64,), device='cuda')

    def loss():
        whole = osler.cross_entropy(logits.clone(), targets)()
        return whole.logits, whole.loss, whole.sum
    checks.same_bits('cross_entropy', loss)

    ids = (torch.rand(3001, device='cuda')**3 * 500).long()
    checks.same_bits('embedding', lambda: [osler.embedding_backward(
        grad, ids, torch.zeros(500, 2560, device='cuda'))().grad_weight])
    checks.same_bits('squares_sum', lambda: [osler.squares_sum([x, grad, logits])().sum])


CHECKS = [check_rms_norm, check_norm_rope, check_gated, check_cross_entropy, check_adamw,
          check_squares, check_embedding, check_merge, check_determinism]


def run_checks(only):
    torch.manual_seed(time.time_ns() % (1 << 31))
    checks = Checks()
    for check in CHECKS:
        if only and only not in check.__name__:
            continue
        begin = time.time()
        try:
            check(checks)
            torch.cuda.synchronize()
        except Exception as error:  # the others still have something to say
            checks.failed += 1
            print(f'FAIL {check.__name__}: {type(error).__name__}: {error}', flush=True)
            if 'CUDA error' in str(error):
                break
        print(f'{check.__name__}: {time.time() - begin:.1f} s', flush=True)
    checks.report()
    return 1 if checks.failed else 0
