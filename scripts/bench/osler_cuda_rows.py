"""The row kernels of libosler_cuda.so (kernels/cuda/*.h) on torch tensors, through ctypes.

Functions allocate what they return, launch on torch's current stream and raise where a kernel
returns an error. Each has a twin in `Calls` that prepares the arguments once, for timing.
"""

import ctypes
import os
import pathlib

import torch

I32, I64, F32, F64, PTR = (ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_double,
                           ctypes.c_void_p)
ELEMENTS = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}
GEMMA, PLAIN = 0, 1  # NormStyle
GELU_TANH, SILU = 0, 1  # GateKind


def _struct(name, *fields):
    return type(name, (ctypes.Structure,), {'_fields_': [(n, t) for t, names in fields
                                                         for n in names.split()]})


class Rows(ctypes.Structure):
    _fields_ = [('data', PTR), ('token_stride', I64), ('head_stride', I64)]


class Matrix(ctypes.Structure):
    _fields_ = [('data', PTR), ('stride', I64)]


class RopeShape(ctypes.Structure):
    _fields_ = [('cos', PTR), ('sin', PTR), ('tokens', I64), ('heads', I32), ('width', I32),
                ('direction', F32), ('element', I32), ('weight_element', I32)]


RmsNormForward = _struct('RmsNormForward', (PTR, 'x residual weight sum y inverse_rms'),
                         (I64, 'rows'), (I32, 'width'), (F32, 'eps'),
                         (I32, 'style element weight_element'))
RmsNormBackward = _struct('RmsNormBackward', (PTR, 'grad x weight inverse_rms grad_sum grad_x '
                                              'grad_weight workspace'), (I64, 'rows'),
                          (I32, 'width style element weight_element'))
NormRopeForward = _struct('NormRopeForward', (RopeShape, 'shape'), (Rows, 'x y'),
                          (PTR, 'weight inverse_rms'), (F32, 'eps'), (I32, 'style'))
NormRopeBackward = _struct('NormRopeBackward', (RopeShape, 'shape'), (Rows, 'grad x grad_x'),
                           (PTR, 'weight inverse_rms grad_weight workspace'), (I32, 'style'))
GatedForward = _struct('GatedForward', (Matrix, 'gate up y'), (I64, 'rows'),
                       (I32, 'width kind element'))
GatedBackward = _struct('GatedBackward', (Matrix, 'grad gate up grad_gate grad_up'),
                        (I64, 'rows'), (I32, 'width kind element'))
CrossEntropyRows = _struct('CrossEntropyRows', (PTR, 'logits targets max sum target loss'),
                           (I64, 'rows begin'), (I32, 'width'), (F32, 'soft_cap gradient_scale'),
                           (I32, 'element'))
AdamWTensor = _struct('AdamWTensor', (PTR, 'master parameter exp_avg exp_avg_sq gradient'),
                      (I64, 'count'), (F64, 'lr weight_decay'))
AdamWStep = _struct('AdamWStep', (PTR, 'tensors'), (I64, 'count'),
                    (I32, 'parameter_element gradient_element moment_element'),
                    (F64, 'beta1 beta2 eps bias_correction1 bias_correction2 gradient_factor'),
                    (PTR, 'device_factor'))
NormTensor = _struct('NormTensor', (PTR, 'data'), (I64, 'count'))
SquaresSum = _struct('SquaresSum', (PTR, 'tensors'), (I64, 'count'), (I32, 'element'),
                     (PTR, 'sum workspace'))
ClipFactor = _struct('ClipFactor', (PTR, 'sum'), (F64, 'multiplier clip'), (PTR, 'norm factor'))
EmbeddingBackward = _struct('EmbeddingBackward', (PTR, 'grad ids order grad_weight workspace'),
                            (I64, 'tokens begin rows'), (I32, 'width'), (F32, 'scale'),
                            (I32, 'element weight_element'))
MergeAttention = _struct('MergeAttention', (PTR, 'part_out part_lse out lse'), (I64, 'rows'),
                         (I32, 'width'))


def library_path():
    root = pathlib.Path(__file__).resolve().parents[2]
    return pathlib.Path(os.environ.get('OSLER_CUDA_LIBRARY',
                                       root / 'build' / 'release' / 'libosler_cuda.so'))


_library = None


def library():
    global _library
    if _library is None:
        _library = ctypes.CDLL(str(library_path()))
    return _library


def _workspace(name, *arguments, dtype=torch.float32):
    """As many numbers as osler_<name>_workspace asks for; each argument with its C type."""
    function = getattr(library(), f'osler_{name}_workspace')
    function.restype, function.argtypes = I64, [kind for _, kind in arguments]
    return poisoned(function(*(value for value, _ in arguments)), dtype=dtype)


def _ptr(x):
    return None if x is None or x.numel() == 0 else x.data_ptr()


def _rows(x):
    return Rows(_ptr(x), x.stride(0), x.stride(1))


def _matrix(x):
    return Matrix(_ptr(x), x.stride(0))


def poisoned(*shape, like=None, dtype=None):
    """What a kernel has not written stays NaN."""
    return torch.full(shape, float('nan'), dtype=dtype or like.dtype, device='cuda')


class Call:
    """One call, with its arguments kept alive: () launches it."""

    def __init__(self, name, arguments, keep, **outputs):
        self.function = getattr(library(), f'osler_{name}')
        self.function.restype, self.function.argtypes = ctypes.c_int, [PTR, PTR]
        self.name, self.arguments, self.keep = name, arguments, keep
        self.__dict__.update(outputs)

    def __call__(self):
        stream = torch.cuda.current_stream().cuda_stream
        result = self.function(ctypes.addressof(self.arguments), stream)
        if result != 0:
            raise RuntimeError(f'osler_{self.name} returned {result}')
        return self


def rms_norm_forward(x, weight, eps=1e-6, style=GEMMA, residual=None, keep_sum=False):
    rows, width = x.shape
    y, inverse_rms = poisoned(rows, width, like=x), poisoned(rows, dtype=torch.float32)
    total = poisoned(rows, width, like=x) if keep_sum else None
    arguments = RmsNormForward(_ptr(x), _ptr(residual), _ptr(weight), _ptr(total), _ptr(y),
                               _ptr(inverse_rms), rows, width, eps, style, ELEMENTS[x.dtype],
                               ELEMENTS[weight.dtype])
    return Call('rms_norm_forward', arguments, (x, weight, residual), y=y,
                inverse_rms=inverse_rms, sum=total)


def rms_norm_backward(grad, x, weight, inverse_rms, style=GEMMA, grad_sum=None,
                      weight_gradient=True):
    rows, width = x.shape
    grad_x = poisoned(rows, width, like=x)
    grad_weight = workspace = None
    if weight_gradient:
        grad_weight = poisoned(width, dtype=torch.float32)
        workspace = _workspace('rms_norm', (width, I32))
    arguments = RmsNormBackward(_ptr(grad), _ptr(x), _ptr(weight), _ptr(inverse_rms),
                                _ptr(grad_sum), _ptr(grad_x), _ptr(grad_weight), _ptr(workspace),
                                rows, width, style, ELEMENTS[x.dtype], ELEMENTS[weight.dtype])
    return Call('rms_norm_backward', arguments, (grad, x, weight, inverse_rms, grad_sum,
                                                 workspace), grad_x=grad_x,
                grad_weight=grad_weight)


def _rope_shape(x, cos, sin, direction, weight):
    return RopeShape(_ptr(cos), _ptr(sin), x.shape[0], x.shape[1], x.shape[2], direction,
                     ELEMENTS[x.dtype], ELEMENTS[x.dtype if weight is None else weight.dtype])


def norm_rope_forward(x, cos, sin, weight=None, eps=1e-6, style=GEMMA, direction=1, y=None):
    y = poisoned(*x.shape, like=x) if y is None else y
    inverse_rms = None if weight is None else poisoned(*x.shape[:2], dtype=torch.float32)
    arguments = NormRopeForward(_rope_shape(x, cos, sin, direction, weight), _rows(x), _rows(y),
                                _ptr(weight), _ptr(inverse_rms), eps, style)
    return Call('norm_rope_forward', arguments, (x, cos, sin, weight), y=y,
                inverse_rms=inverse_rms)


def norm_rope_backward(grad, x, cos, sin, weight, inverse_rms, style=GEMMA, weight_gradient=True):
    grad_x = poisoned(*x.shape, like=x)
    grad_weight = workspace = None
    if weight_gradient:
        width = x.shape[2]
        grad_weight = poisoned(width, dtype=torch.float32)
        workspace = _workspace('norm_rope', (width, I32))
    arguments = NormRopeBackward(_rope_shape(x, cos, sin, 1, weight), _rows(grad), _rows(x),
                                 _rows(grad_x), _ptr(weight), _ptr(inverse_rms),
                                 _ptr(grad_weight), _ptr(workspace), style)
    return Call('norm_rope_backward', arguments, (grad, x, cos, sin, weight, inverse_rms,
                                                  workspace), grad_x=grad_x,
                grad_weight=grad_weight)


def gated_forward(gate, up, kind):
    y = poisoned(*gate.shape, like=gate)
    arguments = GatedForward(_matrix(gate), _matrix(up), _matrix(y), *gate.shape, kind,
                             ELEMENTS[gate.dtype])
    return Call('gated_forward', arguments, (gate, up), y=y)


def gated_backward(grad, gate, up, kind, grad_gate=None, grad_up=None):
    grad_gate = poisoned(*gate.shape, like=gate) if grad_gate is None else grad_gate
    grad_up = poisoned(*gate.shape, like=gate) if grad_up is None else grad_up
    arguments = GatedBackward(_matrix(grad), _matrix(gate), _matrix(up), _matrix(grad_gate),
                              _matrix(grad_up), *gate.shape, kind, ELEMENTS[gate.dtype])
    return Call('gated_backward', arguments, (grad, gate, up), grad_gate=grad_gate,
                grad_up=grad_up)


def cross_entropy(logits, targets, what='', begin=0, soft_cap=0.0, scale=1.0, terms=None):
    """what: '' (both), '_terms' or '_gradient' (with the whole vocabulary's terms)."""
    rows, width = logits.shape
    outputs = {name: poisoned(rows, dtype=torch.float32) for name in ('max', 'sum', 'target',
                                                                     'loss')}
    outputs.update(terms or {})
    arguments = CrossEntropyRows(_ptr(logits), _ptr(targets), *(_ptr(outputs[name]) for name in
                                                                ('max', 'sum', 'target', 'loss')),
                                 rows, begin, width, soft_cap, scale, ELEMENTS[logits.dtype])
    return Call(f'cross_entropy{what}', arguments, (targets,), logits=logits, **outputs)


def adamw(tensors, step, lr, weight_decay, beta1=0.9, beta2=0.999, eps=1e-8, factor=1.0,
          device_factor=None):
    """tensors: of (master, parameter or None, exp_avg, exp_avg_sq, gradient)."""
    table = (AdamWTensor * len(tensors))(*(
        AdamWTensor(*(_ptr(x) for x in t), t[0].numel(), lr, weight_decay) for t in tensors))
    _, parameter, moment, _, gradient = tensors[0]
    arguments = AdamWStep(ctypes.addressof(table), len(tensors),
                          ELEMENTS[torch.float32 if parameter is None else parameter.dtype],
                          ELEMENTS[gradient.dtype], ELEMENTS[moment.dtype], beta1, beta2, eps,
                          1 - beta1**step, 1 - beta2**step, factor, _ptr(device_factor))
    return Call('adamw', arguments, (tensors, table, device_factor))


def squares_sum(tensors):
    table = (NormTensor * len(tensors))(*(NormTensor(_ptr(x), x.numel()) for x in tensors))
    total = poisoned(1, dtype=torch.float64)
    workspace = _workspace('squares_sum', (len(tensors), I64), dtype=torch.float64)
    arguments = SquaresSum(ctypes.addressof(table), len(tensors), ELEMENTS[tensors[0].dtype],
                           _ptr(total), _ptr(workspace))
    return Call('squares_sum', arguments, (tensors, table, workspace), sum=total)


def clip_factor(total, multiplier, clip):
    norm, factor = (poisoned(1, dtype=torch.float32) for _ in range(2))
    arguments = ClipFactor(_ptr(total), multiplier, clip, _ptr(norm), _ptr(factor))
    return Call('clip_factor', arguments, (total,), norm=norm, factor=factor)


def embedding_backward(grad, ids, grad_weight, begin=0, scale=1.0):
    ids, order = torch.sort(ids, stable=True)
    tokens, width = grad.shape
    workspace = _workspace('embedding', (tokens, I64), (width, I32))
    arguments = EmbeddingBackward(_ptr(grad), _ptr(ids), _ptr(order), _ptr(grad_weight),
                                  _ptr(workspace), tokens, begin, grad_weight.shape[0], width,
                                  scale, ELEMENTS[grad.dtype], ELEMENTS[grad_weight.dtype])
    return Call('embedding_backward', arguments, (grad, ids, order, workspace),
                grad_weight=grad_weight)


def merge_attention(part_out, part_lse, out, lse):
    arguments = MergeAttention(_ptr(part_out), _ptr(part_lse), _ptr(out), _ptr(lse),
                               lse.numel(), out.shape[-1])
    return Call('merge_attention', arguments, (part_out, part_lse), out=out, lse=lse)
