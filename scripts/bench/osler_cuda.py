"""libosler_cuda.so from Python: the structs of kernels/cuda/attention.h, filled from torch tensors.

    kernels = OslerCuda()                                   # OSLER_CUDA_LIBRARY, else build/release
    out, lse = kernels.forward(q, k, v, lo, hi, kernels=90)  # q [T, H, D], k and v [S, K, D]; lo, hi int32 [T]
    dq, dk, dv = kernels.backward(q, k, v, lo, hi, out, lse, grad_out)

Calls launch on torch's current stream. `poison` fills every result and the workspace with NaN first, so that an
element that no kernel wrote shows. Unsupported says that the kernels asked for lack this shape or this device.
"""
import ctypes
import os
import pathlib

import torch

AUTO, SM80, SM90 = 0, 80, 90
ELEMENT = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}
UNSUPPORTED = -1
I32, I64, F32, POINTER = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class Unsupported(RuntimeError):
    pass


class CudaError(RuntimeError):
    pass


class Rows(ctypes.Structure):
    _fields_ = [("data", POINTER), ("token_stride", I64), ("head_stride", I64)]

    @classmethod
    def of(cls, tensor):
        if tensor.dim() != 3 or (tensor.numel() and tensor.stride(2) != 1):
            raise ValueError(f"[tokens, heads, width] with a dense width expected, got {tuple(tensor.shape)} with "
                             f"strides {tensor.stride()}")
        return cls(tensor.data_ptr(), tensor.stride(0), tensor.stride(1))


class AttentionInput(ctypes.Structure):
    _fields_ = [("q", Rows), ("k", Rows), ("v", Rows), ("lo", POINTER), ("hi", POINTER), ("queries", I32),
                ("keys", I32), ("heads", I32), ("key_heads", I32), ("width", I32), ("scale", F32), ("soft_cap", F32),
                ("element", I32)]

    @classmethod
    def of(cls, q, k, v, lo, hi, scale, soft_cap):
        for ends in (lo, hi):
            if ends.dtype != torch.int32 or not ends.is_contiguous() or ends.numel() != q.shape[0]:
                raise ValueError("lo and hi are dense int32 tensors of one element a query")
        return cls(Rows.of(q), Rows.of(k), Rows.of(v), lo.data_ptr(), hi.data_ptr(), q.shape[0], k.shape[0],
                   q.shape[1], k.shape[1], q.shape[2], q.shape[2] ** -0.5 if scale is None else scale, soft_cap,
                   ELEMENT[q.dtype])


class AttentionForward(ctypes.Structure):
    _fields_ = [("in", AttentionInput), ("out", Rows), ("out_element", I32), ("lse", POINTER)]


class AttentionBackward(ctypes.Structure):
    _fields_ = [("in", AttentionInput), ("out", Rows), ("grad_out", Rows), ("out_element", I32), ("lse", POINTER),
                ("grad_lse", POINTER), ("grad_q", Rows), ("grad_k", Rows), ("grad_v", Rows), ("grad_element", I32),
                ("workspace", POINTER)]


def library_path():
    """The library to test, or None."""
    named = os.environ.get("OSLER_CUDA_LIBRARY")
    path = pathlib.Path(named or pathlib.Path(__file__).parents[2] / "build/release/libosler_cuda.so")
    return path.resolve() if path.exists() else None


def poison(*tensors):
    for tensor in tensors:
        tensor.fill_(float("nan"))


class OslerCuda:
    def __init__(self, path=None):
        self.path = path or library_path()
        if self.path is None:
            raise FileNotFoundError("libosler_cuda.so: name it in OSLER_CUDA_LIBRARY or build the target osler_cuda")
        library = ctypes.CDLL(str(self.path))
        self._forward, self._backward = library.osler_attention_forward, library.osler_attention_backward
        for function in (self._forward, self._backward):
            function.argtypes, function.restype = [POINTER, I32, POINTER], ctypes.c_int
        self._workspace = library.osler_attention_workspace
        self._workspace.argtypes, self._workspace.restype = [I32, I32], I64

    def workspace(self, queries, heads, device):
        return torch.empty(self._workspace(queries, heads), dtype=torch.float32, device=device)

    def forward(self, q, k, v, lo, hi, *, scale=None, soft_cap=0.0, kernels=AUTO, out=None, lse=None, out_dtype=None,
                poisoned=False):
        """(out, lse): given ones, or new ones of out_dtype (q's, or fp32) and fp32."""
        if out is None:
            out = torch.empty(q.shape, dtype=out_dtype or q.dtype, device=q.device)
        if lse is None:
            lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
        if poisoned:
            poison(out, lse)
        arguments = AttentionForward(AttentionInput.of(q, k, v, lo, hi, scale, soft_cap), Rows.of(out),
                                     ELEMENT[out.dtype], lse.data_ptr())
        self._call(self._forward, arguments, kernels)
        return out, lse

    def backward(self, q, k, v, lo, hi, out, lse, grad_out, *, grad_lse=None, scale=None, soft_cap=0.0, kernels=AUTO,
                 grads=None, grad_dtype=None, workspace=None, poisoned=False):
        """(grad_q, grad_k, grad_v): given ones, or new ones of grad_dtype (q's, or fp32)."""
        if grads is None:
            grads = [torch.empty(x.shape, dtype=grad_dtype or q.dtype, device=q.device) for x in (q, k, v)]
        if workspace is None:
            workspace = self.workspace(q.shape[0], q.shape[1], q.device)
        if poisoned:
            poison(*grads, workspace)
        arguments = AttentionBackward(
            AttentionInput.of(q, k, v, lo, hi, scale, soft_cap), Rows.of(out), Rows.of(grad_out), ELEMENT[out.dtype],
            lse.data_ptr(), None if grad_lse is None else grad_lse.data_ptr(), *[Rows.of(x) for x in grads],
            ELEMENT[grads[0].dtype], workspace.data_ptr())
        self._call(self._backward, arguments, kernels)
        return tuple(grads)

    def _call(self, function, arguments, kernels):
        stream = torch.cuda.current_stream().cuda_stream
        result = function(ctypes.byref(arguments), int(kernels), stream)
        if result == UNSUPPORTED:
            raise Unsupported(f"kernels {kernels} lack this shape or this device")
        if result != 0:
            raise CudaError(f"{function.__name__}: cudaError_t {result}")
