"""The attention cases of the correctness sweep: masks, and what varies with them (heads, dtype, layout, options)."""
import dataclasses

import torch

import gpu_masks as masks

WIDTHS = [64, 72, 80, 96, 128, 256]
HEADS = [(4, 2), (2, 2), (8, 2), (8, 1)]  # query heads, key heads: groups 2, 1, 4, 8
LAYOUTS = ["fused", "dense", "padded"]


@dataclasses.dataclass
class Case:
    mask: masks.Mask
    width: int
    heads: int = 4
    key_heads: int = 2
    dtype: torch.dtype = torch.bfloat16
    layout: str = "dense"
    whole: bool = False      # fp32 outputs and gradients
    soft_cap: float = 0.0
    grad_lse: bool = False
    scale: float = None

    def __str__(self):
        options = [f"hd{self.width}", f"{self.heads}:{self.key_heads}", str(self.dtype).removeprefix("torch."),
                   self.layout, f"{self.mask.queries}x{self.mask.keys}"]
        options += ["fp32 out"] * self.whole + [f"cap {self.soft_cap:g}"] * bool(self.soft_cap)
        return f"{self.mask.name} [{' '.join(options + ['grad_lse'] * self.grad_lse)}]"


def sweep_masks(quick=False):
    """Every kind of mask; sizes that no tile divides, and some that tiles do."""
    documents = [1, 2, 63, 64, 65, 128, 1, 200, 1, 333]
    images = [(0, 50), (70, 340), (401, 480), (750, 751)]  # of documents [400, 1, 350]: at both ends of one, and wide
    some = [
        masks.full(321),
        masks.causal(1000),
        masks.causal(1024, name="causal 1024"),
        masks.documents(documents),
        masks.documents([500, 277], window=100, name="window 100"),
        masks.documents([400, 1, 350], window=70, images=images[:3], name="window+images"),
        masks.cross([100, 1, 77], [300, 5, 64]),
        masks.with_empty_rows(430),
        masks.random_intervals(700, 900, seed=1),
        masks.causal(1, name="1 token"),
    ]
    if quick:
        return some
    return some + [
        masks.documents([1] * 70, name="1-token documents"),
        masks.whole_documents([130, 1, 255, 64], name="whole documents"),
        masks.documents([300], window=1, name="window 1"),
        masks.documents([300, 213], window=17, name="window 17"),
        masks.documents([900], window=128, name="window 128"),
        masks.documents([400, 1, 350], images=images[:3], name="global+images"),
        masks.prefix(600, 250),
        masks.full(65, 1000, name="65x1000"),
        masks.full(1000, 65, name="1000x65"),
        masks.causal(100, 800, name="last 100 of 800"),
        masks.random_intervals(1100, 500, seed=2, step=50, name="random steps"),
        masks.part_of_keys(masks.causal(640), 200, 429, name="ring part"),
        masks.nothing(150, 90),
        masks.full(1, 500, name="1x500"),
        masks.full(130, 1, name="130x1"),
        masks.full(0, 5, name="0 queries"),
        masks.full(5, 0, name="0 keys"),
        masks.causal(2085, name="causal 2085"),
    ]


def sweep(width, quick=False):
    """The cases of one width: everything but the mask rotates, with periods that meet in many combinations."""
    for n, mask in enumerate(sweep_masks(quick)):
        turn = n + WIDTHS.index(width) if width in WIDTHS else n
        heads, key_heads = HEADS[turn % 4]
        layout = LAYOUTS[(turn + n // 4) % 3]
        if layout == "fused" and mask.queries != mask.keys:
            layout = "padded"
        yield Case(mask, width, heads, key_heads, torch.float16 if turn % 5 == 3 else torch.bfloat16, layout,
                   whole=turn % 3 == 1, soft_cap=20.0 if turn % 6 == 4 else 0.0, grad_lse=turn % 4 >= 2,
                   scale=0.2 if turn % 7 == 0 else None)
