"""Row-interval masks by name, for checks and benches: row i sees the keys [lo[i], hi[i]), both non-decreasing.

A Mask also says what peers without intervals need: the documents' lengths, whether it is causal, the window.
"""
import dataclasses

import torch


@dataclasses.dataclass
class Mask:
    name: str
    lo: torch.Tensor  # int32, on the CPU
    hi: torch.Tensor
    keys: int
    lengths: list = None   # of the documents; None: one document, or documents are not all there is to it
    causal: bool = False
    window: int = None     # keys j > i − window
    exact: bool = True     # lengths, causal and window say everything; else they say the nearest mask

    @property
    def queries(self):
        return self.lo.numel()

    @property
    def area(self):
        """Pairs that the mask lets through."""
        return int((self.hi.long() - self.lo.long()).sum())

    @property
    def nearest(self):
        """What lengths, causal and window say: the mask of peers that know no images."""
        return self if self.exact else documents(self.lengths, self.window)

    def dense(self, device):
        """[queries, keys], True where a row sees a key."""
        j = torch.arange(self.keys, device=device)
        return (j >= self.lo.to(device)[:, None]) & (j < self.hi.to(device)[:, None])

    def ends(self, device):
        return self.lo.to(device), self.hi.to(device)


def make(name, lo, hi, keys, **rest):
    lo, hi = torch.as_tensor(lo, dtype=torch.int32), torch.as_tensor(hi, dtype=torch.int32)
    ordered = bool((lo <= hi).all()) and bool((lo[1:] >= lo[:-1]).all()) and bool((hi[1:] >= hi[:-1]).all())
    if not ordered or (lo.numel() and (int(lo.min()) < 0 or int(hi.max()) > keys)):
        raise ValueError(f"{name}: not a row-interval mask")
    return Mask(name, lo, hi, keys, **rest)


def full(queries, keys=None, name="full"):
    keys = queries if keys is None else keys
    return make(name, [0] * queries, [keys] * queries, keys, lengths=[queries] if queries == keys else None)


def causal(queries, keys=None, name="causal"):
    """The last query sees every key."""
    keys = queries if keys is None else keys
    hi = [keys - queries + i + 1 for i in range(queries)]
    return make(name, [0] * queries, hi, keys, lengths=[queries] if queries == keys else None, causal=True)


def documents(lengths, window=None, images=(), name="documents"):
    """Causal inside each document. images: [begin, end) in packed positions, seen whole by their own rows.

    Gemma 3's rule: (causal OR same image) AND j > i − window, and nothing crosses a document.
    """
    lo, hi, begin = [], [], 0
    for length in lengths:
        for i in range(begin, begin + length):
            lo.append(begin if window is None else max(begin, i - window + 1))
            hi.append(i + 1)
        begin += length
    for first, end in images:
        hi[first:end] = [end] * (end - first)
    return make(name, lo, hi, begin, lengths=list(lengths), causal=True, window=window, exact=not images)


def whole_documents(lengths, name="whole documents"):
    """Every row of a document sees all of it."""
    lo, hi, begin = [], [], 0
    for length in lengths:
        lo += [begin] * length
        hi += [begin + length] * length
        begin += length
    return make(name, lo, hi, begin, lengths=list(lengths))


def cross(query_lengths, key_lengths, name="cross"):
    """Document d's rows see all of its keys, and have another number of them."""
    lo, hi, begin = [], [], 0
    for rows, keys in zip(query_lengths, key_lengths, strict=True):
        lo += [begin] * rows
        hi += [begin + keys] * rows
        begin += keys
    return make(name, lo, hi, begin)


def prefix(length, prefix_length, name="prefix"):
    """The prefix sees itself whole, what follows is causal."""
    return make(name, [0] * length, [max(i + 1, prefix_length) for i in range(length)], length)


def with_empty_rows(length, name="empty rows"):
    """Rows that see nothing at both ends and in between, and keys that nobody sees."""
    lo, hi, keys = [], [], length + 40
    for i in range(length):
        end = min(20 + i, keys - 15)
        empty = i < length // 5 or i >= length - length // 4 or i % 97 == 0 or length // 3 < i < length // 2
        begin = end if empty else max(20, end - 150)
        lo.append(max(begin, lo[-1] if lo else 0))
        hi.append(max(end, lo[-1]))
    return make(name, lo, hi, keys)


def nothing(queries, keys, name="nothing"):
    return make(name, [keys // 2] * queries, [keys // 2] * queries, keys)


def random_intervals(queries, keys, seed, step=1, name="random"):
    """Two sorted draws of multiples of step, so that ends repeat and jump; many rows see nothing."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(0, keys + 1, (2, queries), generator=generator) // step * step
    lo = ends[0].sort().values
    return make(name, lo, torch.maximum(ends[1].sort().values, lo), keys)


def part_of_keys(mask, begin, end, name=None):
    """The same rows, looking at the keys [begin, end) alone: what one rank of a ring holds."""
    clip = lambda x: x.clamp(begin, end) - begin
    return make(name or f"{mask.name} {begin}:{end}", clip(mask.lo), clip(mask.hi), end - begin)


def packed_lengths(total, seed, shortest=128, longest=None):
    """Lengths of documents that fill `total` tokens, drawn log-uniformly from [shortest, longest or total / 4]."""
    generator = torch.Generator().manual_seed(seed)
    longest = longest or total // 4
    lengths = []
    while sum(lengths) < total:
        draw = float(torch.rand((), generator=generator))
        lengths.append(int(shortest * (longest / shortest) ** draw))
    lengths[-1] -= sum(lengths) - total
    return lengths


def image_spans(lengths, image_tokens=256, every=2048):
    """One image of image_tokens in each `every` tokens of a document that has room for it."""
    spans, begin = [], 0
    for length in lengths:
        spans += [(begin + at, begin + at + image_tokens) for at in range(64, length - image_tokens, every)]
        begin += length
    return spans
