"""Times attention forward and backward: Osler's families and their peers on the same tensors, in one process.

Operations are counted by the mask's area: forward 4 · D · H · A, backward 2.5 times that, whatever is recomputed. Every
result is compared with FA2's (under images: the dense mask's); one that is far off is marked with "!" and is no peer to
be faster than. "~" marks a peer without images on the nearest mask, over whose own area its operations are counted.
"""
import dataclasses
import json

import torch

import gpu_masks as masks
import gpu_peers
import gpu_timing
import osler_cuda

WRONG = 0.05  # relative error of a result that is of another mask, or wrong
PACK = masks.packed_lengths(32768, seed=2)


@dataclasses.dataclass
class BenchCase:
    name: str
    mask: masks.Mask
    width: int
    heads: int
    key_heads: int
    goals: tuple = None  # forward, deterministic backward: TFLOP/s on one H200


def cases():
    """In the order of their worth, for a budget that ends early."""
    packed = masks.documents(PACK)
    local = masks.documents(PACK, window=1024, images=masks.image_spans(PACK))
    return [
        BenchCase("hd128 causal 16k", masks.causal(16384), 128, 32, 8, (560, 430)),
        BenchCase("hd256 causal 16k", masks.causal(16384), 256, 16, 8, (520, 400)),
        BenchCase("hd256 window+documents+images 32k", local, 256, 16, 8, (430, 300)),
        BenchCase("hd128 packed 32k", packed, 128, 32, 8, (500, 370)),
        BenchCase("hd128 causal 8k", masks.causal(8192), 128, 32, 8, (300, 230)),
        BenchCase("hd256 causal 8k", masks.causal(8192), 256, 16, 8, (520, 400)),
        BenchCase("hd64 causal 16k", masks.causal(16384), 64, 32, 8),
        BenchCase("hd256 packed 32k", packed, 256, 16, 8),
    ]


def _first_line(error):
    return str(error).strip().splitlines()[0][:160]


def _osler(library, work, family):
    lo, hi = work.mask.ends("cuda")
    out, lse = torch.empty_like(work.q), torch.empty(work.q.shape[:2], device="cuda")
    grads = [torch.empty_like(x) for x in (work.q, work.k, work.v)]
    workspace = library.workspace(work.q.shape[0], work.q.shape[1], "cuda")

    def forward(kernels=family):
        return library.forward(work.q, work.k, work.v, lo, hi, kernels=kernels, out=out, lse=lse)

    def backward():
        return library.backward(work.q, work.k, work.v, lo, hi, out, lse, work.grad_out, kernels=family, grads=grads,
                                workspace=workspace)

    try:
        forward(osler_cuda.AUTO)  # what backward starts from, also where the family lacks the forward pass
    except osler_cuda.Unsupported:
        pass
    return forward, backward


def _relative(got, want):
    """‖got − want‖ / ‖want‖ of results [tokens, heads, width], however they lie and where heads are repeated."""
    got = got[0] if got.dim() == 4 else got
    got = got if got.shape[0] == want.shape[0] else got.transpose(0, 1)
    if got.shape[1] != want.shape[1]:
        got = got.float().unflatten(1, (want.shape[1], -1)).sum(2)
    return float((got.float() - want.float()).norm() / want.float().norm())


def reference_results(work):
    """{name: result} of a peer that has exactly this mask."""
    make = gpu_peers.fa2 if work.mask.exact else gpu_peers.dense_mask
    forward, backward = make(work)
    results = dict(zip(("out", "dq", "dk", "dv"), [forward()[0], *backward()[:3]], strict=True))
    plain = {}
    for name, like in (("out", work.q), ("dq", work.q), ("dk", work.k), ("dv", work.v)):
        x = results[name][0] if results[name].dim() == 4 else results[name]
        x = x if x.shape[0] == like.shape[0] else x.transpose(0, 1)
        plain[name] = x if x.shape == like.shape else x.float().unflatten(1, (like.shape[1], -1)).sum(2).to(x.dtype)
    return plain


def _time_pass(timer, row, which, function, flops, seconds, names, wanted):
    """Times one pass and compares what it gave with `wanted`; a pass that is far off is marked wrong."""
    try:
        got = function()
        errors = {name: _relative(x, wanted[name]) for name, x in zip(names, got)} if wanted else {}
        times = timer.time(function, seconds)
    except osler_cuda.Unsupported:
        row[which] = {"note": "unsupported"}
        return
    row[which] = {**dataclasses.asdict(times), "tflops": flops / times.ms / 1e9, "errors": errors}
    if not row["nearest"] and any(not error < WRONG for error in errors.values()):
        row[which]["wrong"] = True


def _row(timer, work, name, make, seconds, wanted):
    """{"name", "nearest", "forward", "backward", "note"?}; a peer that cannot gives a note."""
    row = {"name": name, "nearest": name in gpu_peers.NO_IMAGES and not work.mask.exact}
    flops = work.flops(work.mask.nearest if row["nearest"] else work.mask)
    try:
        forward, backward = make(work)
        _time_pass(timer, row, "forward", forward, flops, seconds, ["out"], wanted)
        _time_pass(timer, row, "backward", backward, 2.5 * flops, seconds, ["dq", "dk", "dv"], wanted)
    except (RuntimeError, NotImplementedError) as error:
        row["note"] = _first_line(error)
    return row


def run_case(timer, library, case, args, share):
    work = gpu_peers.draw(case.mask, case.heads, case.key_heads, case.width)
    makers = {f"osler sm_{f}": lambda work, f=f: _osler(library, work, f) for f in args.families} if library else {}
    makers |= {name: make for name, make in gpu_peers.PEERS.items() if name in (args.peers or gpu_peers.PEERS)}
    try:
        wanted = reference_results(work)
    except RuntimeError as error:
        print(f"{case.name}: not compared: {_first_line(error)}")
        wanted = None
    rows = []
    for name, make in makers.items():
        rows.append(_row(timer, work, name, make, share / (2 * len(makers)), wanted))
        torch.cuda.empty_cache()
    return {"case": case.name, "heads": case.heads, "key_heads": case.key_heads, "width": case.width,
            "queries": case.mask.queries, "documents": len(case.mask.lengths), "area": case.mask.area,
            "goals": case.goals, "rows": rows, "clocks": gpu_timing.clocks()}


def best_peer(result, which):
    """TFLOP/s of the fastest peer, deterministic or not, whose results are right; 0: none."""
    peers = [r[which] for r in result["rows"] if not r["name"].startswith("osler") and "tflops" in r.get(which, {})]
    return max((p["tflops"] for p in peers if not p.get("wrong")), default=0.0)


def _cell(row, which, best):
    part = row.get(which, {})
    if "tflops" not in part:
        return part.get("note", "–")
    ratio = f"{part['tflops'] / best:.2f}" if best else "–"
    times = f"{part['ms']:8.3f} ({part['p20']:.3f}–{part['p80']:.3f}, {part['repeats']})"
    mark = "!" if part.get("wrong") else "~" if row["nearest"] else " "
    worst = max(part["errors"].values(), default=float("nan"))
    return f"{times} {part['tflops']:6.0f} {ratio:>5} {worst:.0e}{mark}"


def print_case(result):
    goals = f"; goals {result['goals'][0]} / {result['goals'][1]}" if result["goals"] else ""
    print(f"\n{result['case']}: {result['heads']}:{result['key_heads']} heads, {result['documents']} documents, "
          f"{result['area'] / 1e6:.1f}M pairs{goals}; {result['clocks']}")
    title = "ms (p20–p80, repeats) TFLOP/s ×best error"
    print(f"{'':14}{'forward ' + title:>52}{'backward ' + title:>52}")
    best = {which: best_peer(result, which) for which in ("forward", "backward")}
    for row in result["rows"]:
        if "note" in row and "forward" not in row:
            print(f"{row['name']:14}    {row['note']}")
            continue
        cells = [_cell(row, which, best[which]).rjust(52) for which in best]
        print(f"{row['name']:14}{''.join(cells)}  {row.get('note', '')}")


def run(args):
    """The program's exit code: 1 after an error of the device, 0 also where Osler's library is missing."""
    try:
        library = osler_cuda.OslerCuda()
    except OSError as error:  # not there, or not to be loaded
        print(f"peers alone: {error}")
        library = None
    timer = gpu_timing.Timer(gpu_timing.Budget(args.budget_seconds))
    machine = {"device": torch.cuda.get_device_name(), "torch": torch.__version__,
               "cudnn": torch.backends.cudnn.version(), **gpu_timing.ceilings(timer)}
    print(f"{machine['device']}, torch {machine['torch']}, cuDNN {machine['cudnn']}; bf16 8192³ product "
          f"{machine['gemm_tflops']:.0f} TFLOP/s at {machine['clocks']}; copy {machine['copy_tbps']:.2f} TB/s")
    wanted = [c for c in cases() if not args.cases or any(x in c.name for x in args.cases)]
    results, code = [], 0
    for n, case in enumerate(wanted):
        if timer.budget.left < 1.0:
            print("\nleft out, time is up: " + ", ".join(c.name for c in wanted[n:]))
            break
        try:
            results.append(run_case(timer, library, case, args, 0.7 * timer.budget.left / (len(wanted) - n)))
        except RuntimeError as error:  # of the device: nothing after it would run
            print(f"\n{case.name}: {_first_line(error)}")
            code = 1
            break
        print_case(results[-1])
        if args.json:
            args.json.write_text(json.dumps({"machine": machine, "attention": results}, indent=1))
    return code
