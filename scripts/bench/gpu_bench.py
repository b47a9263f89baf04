"""Times attention forward and backward: Osler's families and their peers on the same tensors, in one process.

Operations are counted by the mask's area: forward 4 · D · H · A, backward 2.5 times that, whatever is recomputed.
"""
import dataclasses
import json

import torch

import gpu_masks as masks
import gpu_peers
import gpu_timing
import osler_cuda

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


def _osler(library, work, family):
    lo, hi = work.mask.ends("cuda")
    out, lse = torch.empty_like(work.q), torch.empty(work.q.shape[:2], device="cuda")
    grads = [torch.empty_like(x) for x in (work.q, work.k, work.v)]
    workspace = library.workspace(work.q.shape[0], work.q.shape[1], "cuda")

    def forward():
        return library.forward(work.q, work.k, work.v, lo, hi, kernels=family, out=out, lse=lse)

    def backward():
        return library.backward(work.q, work.k, work.v, lo, hi, out, lse, work.grad_out, kernels=family, grads=grads,
                                workspace=workspace)

    return forward, backward


def _relative(got, want):
    got, want = got.reshape(want.shape).float(), want.float()
    return float((got - want).norm() / want.norm())


def _time_pass(timer, row, name, function, flops, seconds):
    try:
        function()
        times = timer.time(function, seconds)
    except osler_cuda.Unsupported:
        row[name] = {"note": "unsupported"}
        return
    row[name] = {**dataclasses.asdict(times), "tflops": flops / times.ms / 1e9}


def _row(timer, work, name, make, seconds):
    """{"name", "forward", "backward", "note"?}; a peer that cannot gives a note."""
    row = {"name": name}
    try:
        forward, backward = make(work)
        _time_pass(timer, row, "forward", forward, work.flops(), seconds)
        _time_pass(timer, row, "backward", backward, 2.5 * work.flops(), seconds)
    except (RuntimeError, NotImplementedError) as error:
        row["note"] = str(error).strip().splitlines()[0][:160]
    return row


def _agreement(library, work, families):
    """{family: {name: ‖ours − FA2‖ / ‖FA2‖}} where FA2 has the same mask."""
    try:
        forward, backward = gpu_peers.fa2(work)
    except RuntimeError:
        return {}
    want, agreement = [forward()[0], *backward()], {}
    for family in families:
        try:
            mine = _osler(library, work, family)
            got = [mine[0]()[0], *mine[1]()]
        except osler_cuda.Unsupported:
            continue
        agreement[family] = dict(zip(("out", "dq", "dk", "dv"), map(_relative, got, want), strict=True))
    return agreement


def run_case(timer, library, case, args, share):
    work = gpu_peers.draw(case.mask, case.heads, case.key_heads, case.width)
    makers = {f"osler sm_{f}": lambda work, f=f: _osler(library, work, f) for f in args.families} if library else {}
    makers |= {name: make for name, make in gpu_peers.PEERS.items() if name in (args.peers or gpu_peers.PEERS)}
    rows = []
    for name, make in makers.items():
        rows.append(_row(timer, work, name, make, share / (2 * len(makers))))
        torch.cuda.empty_cache()
    result = {"case": case.name, "heads": case.heads, "key_heads": case.key_heads, "width": case.width,
              "queries": case.mask.queries, "documents": len(case.mask.lengths), "area": case.mask.area,
              "goals": case.goals, "rows": rows, "clocks": gpu_timing.clocks()}
    if library and case.mask.exact:
        result["agreement"] = _agreement(library, work, args.families)
    return result


def best_peer(result, which):
    """TFLOP/s of the fastest peer, deterministic or not; 0: none."""
    peers = [r for r in result["rows"] if not r["name"].startswith("osler") and "tflops" in r.get(which, {})]
    return max((r[which]["tflops"] for r in peers), default=0.0)


def _cell(row, which, best):
    part = row.get(which, {})
    if "tflops" not in part:
        return part.get("note", "–")
    ratio = f"{part['tflops'] / best:.2f}" if best else "–"
    times = f"{part['ms']:8.3f} ({part['p20']:.3f}–{part['p80']:.3f}, {part['repeats']})"
    return f"{times} {part['tflops']:6.0f} {ratio:>5}"


def print_case(result):
    goals = f"; goals {result['goals'][0]} / {result['goals'][1]}" if result["goals"] else ""
    print(f"\n{result['case']}: {result['heads']}:{result['key_heads']} heads, {result['documents']} documents, "
          f"{result['area'] / 1e6:.1f}M pairs{goals}; {result['clocks']}")
    title = "ms (p20–p80, repeats) TFLOP/s ×best peer"
    print(f"{'':14}{'forward ' + title:>52}{'backward ' + title:>52}")
    best = {which: best_peer(result, which) for which in ("forward", "backward")}
    for row in result["rows"]:
        if "note" in row and "forward" not in row:
            print(f"{row['name']:14}    {row['note']}")
            continue
        cells = [_cell(row, which, best[which]).rjust(52) for which in best]
        print(f"{row['name']:14}{''.join(cells)}  {row.get('note', '')}")
    for family, errors in result.get("agreement", {}).items():
        print(f"sm_{family} beside FA2: " + ", ".join(f"{name} {value:.1e}" for name, value in errors.items()))


def run(args):
    """The program's exit code: 1 after an error of the device, 0 also where Osler's library is missing."""
    library = osler_cuda.OslerCuda() if osler_cuda.library_path() else None
    timer = gpu_timing.Timer(gpu_timing.Budget(args.budget_seconds))
    machine = {"device": torch.cuda.get_device_name(), "torch": torch.__version__,
               "cudnn": torch.backends.cudnn.version(), **gpu_timing.ceilings(timer)}
    print(f"{machine['device']}, torch {machine['torch']}, cuDNN {machine['cudnn']}; bf16 8192³ product "
          f"{machine['gemm_tflops']:.0f} TFLOP/s at {machine['clocks']}; copy {machine['copy_tbps']:.2f} TB/s")
    if not library:
        print("no libosler_cuda.so: peers alone")
    wanted = [c for c in cases() if not args.cases or any(x in c.name for x in args.cases)]
    results, code = [], 0
    for n, case in enumerate(wanted):
        if timer.budget.left < 1.0:
            print("\nleft out, time is up: " + ", ".join(c.name for c in wanted[n:]))
            break
        try:
            results.append(run_case(timer, library, case, args, 0.7 * timer.budget.left / (len(wanted) - n)))
        except RuntimeError as error:  # of the device: nothing after it would run
            print(f"\n{case.name}: {error}")
            code = 1
            break
        print_case(results[-1])
        if args.json:
            args.json.write_text(json.dumps({"machine": machine, "attention": results}, indent=1))
    return code
