// The fused kernels beside ATen on one machine: forward and backward, fp32 and bf16.
//
//   kernels_bench [--quick] [name …]
//
// Each line: time of ours, of the autograd composition of ATen operations, and of the best sequence
// of raw ATen operations without autograd (best of some repeats each), what ours moves or computes
// a second, and the ratios. "copy" is at::copy_ on the same machine, bytes read and written. A
// process-wide peak cannot be reset, so `kernels_bench memory fp32|bf16 D` measures linear +
// cross-entropy alone.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <malloc.h>
#include <sys/resource.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cpu_isa.h"
#include "kernels/gated_activation.h"
#include "kernels/gated_activation_cpu.h"
#include "kernels/linear_cross_entropy.h"
#include "kernels/norm_rope.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"

namespace osler {
namespace {

using Work = std::function<void()>;

double Seconds(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The peers take turns, so that a slow moment of the machine hits all of them.
std::vector<double> Best(const std::vector<Work>& works, int repeats) {
  std::vector<double> best(works.size(), 1e30);
  for (int r = 0; r <= repeats; ++r) {
    for (size_t i = 0; i < works.size(); ++i) {
      const double seconds = Seconds(works[i]);
      if (r > 0) best[i] = std::min(best[i], seconds);
    }
  }
  return best;
}

const char* Name(at::ScalarType dtype) { return dtype == at::kFloat ? "fp32" : "bf16"; }

struct Line {
  std::string name;
  at::ScalarType dtype;
  double amount;  // bytes or floating-point operations
  const char* unit;
  std::vector<Work> works;  // ours, autograd composition, raw composition (may be missing)
};

void Run(const Line& line, int repeats) {
  const std::vector<double> t = Best(line.works, repeats);
  std::printf("%-34s %s  %9.3f ms  %7.1f %s |", line.name.c_str(), Name(line.dtype), t[0] * 1e3,
              line.amount / t[0] / 1e9, line.unit);
  for (size_t i = 1; i < t.size(); ++i) {
    std::printf("  %s %9.3f ms (%.2fx)", i == 1 ? "autograd" : "raw", t[i] * 1e3, t[i] / t[0]);
  }
  std::printf("\n");
  std::fflush(stdout);
}

at::Tensor Leaf(std::vector<int64_t> shape, at::ScalarType dtype) {
  return at::randn(shape).to(dtype).requires_grad_(true);
}

double Bytes(const at::Tensor& x) { return static_cast<double>(x.nbytes()); }

using Pass = std::function<std::vector<at::Tensor>()>;
Work ForwardBackward(Pass forward, std::vector<at::Tensor> grads, std::vector<at::Tensor> leaves) {
  return [=] { torch::autograd::grad(forward(), leaves, grads); };
}

at::Tensor AtenNorm(const at::Tensor& x, const at::Tensor& w, NormStyle style) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor n = wide * (wide.pow(2).mean(-1, true) + 1e-6).rsqrt();
  if (style == NormStyle::kPlain) return w * n.to(x.scalar_type());
  return (n * (w.to(at::kFloat) + 1)).to(x.scalar_type());
}

// Forward and backward with as few ATen operations as it takes, in place where that is possible.
void RawNorm(const at::Tensor& x, const at::Tensor& w, const at::Tensor& g, NormStyle style) {
  const at::NoGradGuard no_grad;
  const bool gemma = style == NormStyle::kGemma;
  const at::Tensor gain = gemma ? w.to(at::kFloat) + 1 : w.to(at::kFloat);
  const at::Tensor r = at::mean(at::square(x.to(at::kFloat)), -1, true).add_(1e-6).rsqrt_();
  at::Tensor y = at::mul(x.to(at::kFloat), r);
  y = gemma ? y.mul_(gain).to(x.scalar_type()) : y.to(x.scalar_type()).mul_(w);
  const at::Tensor wide = g.to(at::kFloat), n = at::mul(x.to(at::kFloat), r);
  at::Tensor product = at::mul(wide, n);
  const at::Tensor grad_w = product.sum(0).to(w.scalar_type());
  const at::Tensor mean = at::mean(product.mul_(gain), -1, true);
  const at::Tensor grad_x = at::mul(wide, gain).addcmul_(n, mean, -1).mul_(r).to(x.scalar_type());
}

at::Tensor RotateHalf(const at::Tensor& x) {
  const int64_t half = x.size(-1) / 2;
  return at::cat({-x.narrow(-1, half, half), x.narrow(-1, 0, half)}, -1);
}

at::Tensor AtenRope(const at::Tensor& x, const RopeTables& tables) {
  const at::Tensor cos = tables.cos_TD.to(x.scalar_type()).unsqueeze(1);
  const at::Tensor sin = tables.sin_TD.to(x.scalar_type()).unsqueeze(1);
  return x * cos + RotateHalf(x) * sin;
}

constexpr int kRepeats = 10;

void BenchNorms(at::ScalarType dtype) {
  for (const int64_t width : {int64_t{1152}, int64_t{2560}}) {
    const at::Tensor x = Leaf({4096, width}, dtype), residual = Leaf({4096, width}, dtype),
                     w = Leaf({width}, dtype), g = at::randn({4096, width}).to(dtype);
    const std::string shape = " 4096x" + std::to_string(width);
    for (const NormStyle style : {NormStyle::kGemma, NormStyle::kPlain}) {
      const bool gemma = style == NormStyle::kGemma;
      const Work ours =
          ForwardBackward([=] { return std::vector{RmsNorm(x, w, 1e-6, style)}; }, {g}, {x, w});
      const Work aten =
          ForwardBackward([=] { return std::vector{AtenNorm(x, w, style)}; }, {g}, {x, w});
      const Work raw = [=] { RawNorm(x, w, g, style); };
      // x → y, then g, x → grad
      Run({(gemma ? "rms_norm(1+w)" : "rms_norm(w)") + shape,
           dtype,
           5 * Bytes(x),
           "GB/s",
           {ours, aten, raw}},
          kRepeats);
    }
    Run({"add_rms_norm(w)" + shape,
         dtype,
         8 * Bytes(x),
         "GB/s",
         {ForwardBackward(
              [=] {
                const auto out = AddRmsNorm(residual, x, w, 1e-6, NormStyle::kPlain);
                return std::vector{out.sum, out.normed};
              },
              {g, g}, {residual, x, w}),
          ForwardBackward(
              [=] {
                const at::Tensor sum = residual + x;
                return std::vector{sum, AtenNorm(sum, w, NormStyle::kPlain)};
              },
              {g, g}, {residual, x, w})}},
        kRepeats);
    Run({"rms_norm_add(1+w)" + shape,
         dtype,
         6 * Bytes(x),
         "GB/s",
         {ForwardBackward(
              [=] { return std::vector{RmsNormAdd(residual, x, w, 1e-6, NormStyle::kGemma)}; }, {g},
              {residual, x, w}),
          ForwardBackward([=] { return std::vector{residual + AtenNorm(x, w, NormStyle::kGemma)}; },
                          {g}, {residual, x, w})}},
        kRepeats);
  }
}

void BenchRope(at::ScalarType dtype) {
  const RopeTables tables = MakeRopeTables(at::arange(4096), 256, {.theta = 1e6});
  const at::Tensor x = Leaf({4096, 8, 256}, dtype), w = Leaf({256}, dtype),
                   g = at::randn({4096, 8, 256}).to(dtype);
  const double tables_bytes = Bytes(tables.cos_TD);  // half of each table, read twice
  Run({"rope 4096x8x256",
       dtype,
       4 * Bytes(x) + 2 * tables_bytes,
       "GB/s",
       {ForwardBackward([=] { return std::vector{ApplyRope(x, tables)}; }, {g}, {x}),
        ForwardBackward([=] { return std::vector{AtenRope(x, tables)}; }, {g}, {x})}},
      kRepeats);
  for (const NormStyle style : {NormStyle::kGemma, NormStyle::kPlain}) {
    Run({style == NormStyle::kGemma ? "norm_rope(1+w) 4096x8x256" : "norm_rope(w) 4096x8x256",
         dtype,
         5 * Bytes(x) + 2 * tables_bytes,
         "GB/s",
         {ForwardBackward([=] { return std::vector{NormRope(x, w, 1e-6, style, tables)}; }, {g},
                          {x, w}),
          ForwardBackward([=] { return std::vector{AtenRope(AtenNorm(x, w, style), tables)}; }, {g},
                          {x, w})}},
        kRepeats);
  }
}

void BenchGated(at::ScalarType dtype) {
  const at::Tensor gate = Leaf({4096, 6912}, dtype), up = Leaf({4096, 6912}, dtype),
                   g = at::randn({4096, 6912}).to(dtype);
  for (const GateKind kind : {GateKind::kGeluTanh, GateKind::kSilu}) {
    const bool gelu = kind == GateKind::kGeluTanh;
    const auto act = [=](const at::Tensor& x) { return gelu ? at::gelu(x, "tanh") : at::silu(x); };
    const Work raw = [=] {
      const at::NoGradGuard no_grad;
      at::Tensor a = act(gate);
      at::mul(a, up);
      const at::Tensor a_again = act(gate);
      at::mul(g, a_again);
      const at::Tensor d = at::mul(g, up);
      gelu ? at::gelu_backward(d, gate, "tanh") : at::silu_backward(d, gate);
    };
    Run({gelu ? "geglu 4096x6912" : "swiglu 4096x6912",
         dtype,
         8 * Bytes(gate),
         "GB/s",
         {ForwardBackward([=] { return std::vector{GatedActivation(gate, up, kind)}; }, {g},
                          {gate, up}),
          ForwardBackward([=] { return std::vector{act(gate) * up}; }, {g}, {gate, up}), raw}},
        kRepeats);
  }
}

struct HeadCase {
  int64_t tokens, width, vocabulary;
};

// ATen on chunks: autograd frees a chunk's logits before the next.
Work AtenHead(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
              const at::Tensor& grad_weight, int64_t chunk) {
  return [=] {
    for (int64_t from = 0; from < hidden.size(0); from += chunk) {
      const int64_t length = std::min(chunk, hidden.size(0) - from);
      const at::Tensor h = hidden.detach().narrow(0, from, length).requires_grad_(true);
      const at::Tensor loss =
          at::cross_entropy_loss(at::matmul(h, weight.t()).to(at::kFloat),
                                 targets.narrow(0, from, length), {}, at::Reduction::Sum);
      const auto grads = torch::autograd::grad({loss}, {h, weight});
      at::Tensor(grad_weight).add_(grads[1]);
    }
  };
}

void BenchHead(at::ScalarType dtype) {
  for (const HeadCase& c :
       {HeadCase{1024, 640, 262208}, HeadCase{2048, 896, 151936}, HeadCase{2048, 1152, 32000}}) {
    const at::Tensor hidden = Leaf({c.tokens, c.width}, dtype),
                     weight =
                         (at::randn({c.vocabulary, c.width}) * 0.05).to(dtype).requires_grad_(true),
                     targets = at::randint(0, c.vocabulary, {c.tokens}, at::kLong);
    const at::Tensor grad_weight = at::zeros({c.vocabulary, c.width});
    const double flops = 6.0 * static_cast<double>(c.tokens * c.width * c.vocabulary);
    Run({"linear_ce " + std::to_string(c.tokens) + "x" + std::to_string(c.width) + " V" +
             std::to_string(c.vocabulary),
         dtype,
         flops,
         "GFLOP/s",
         {[=] { LinearCrossEntropy(hidden.detach(), weight.detach(), targets, grad_weight, {}); },
          AtenHead(hidden, weight, targets, grad_weight, c.tokens),
          AtenHead(hidden, weight, targets, grad_weight, 512)}},
        2);
  }
}

void PrintRates() {
  const at::Tensor a = at::randn({64 << 20}), b = at::empty_like(a);
  const double copy = Best({[&] { at::Tensor(b).copy_(a); }}, 5)[0];
  std::printf("isa %s, %d threads\ncopy %.1f GB/s\n", CpuIsaName(BestCpuIsa()),
              at::get_num_threads(), 2 * Bytes(a) / copy / 1e9);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({2048, 2048}).to(dtype);
    const double seconds = Best({[&] { at::mm(x, x); }}, 5)[0];
    std::printf("gemm 2048^3 %s %.0f GFLOP/s\n", Name(dtype),
                2 * 2048.0 * 2048 * 2048 / seconds / 1e9);
  }
  std::fflush(stdout);
}

int64_t PeakKib() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

// Gemma's vocabulary and 32,768 tokens: what stands in memory beyond weights, their gradient and
// the inputs.
void MeasureMemory(at::ScalarType dtype, int64_t width) {
  const int64_t tokens = 32768, vocabulary = 262208;
  const at::Tensor hidden = at::empty({tokens, width}, dtype).normal_(),
                   weight = at::empty({vocabulary, width}, dtype).normal_(0, 0.05),
                   targets = at::randint(0, vocabulary, {tokens}, at::kLong);
  at::Tensor grad_weight = at::zeros({vocabulary, width});
  grad_weight.add_(1);  // touched: its pages belong to the baseline
  const int64_t before = PeakKib();
  double seconds = Seconds([&] { LinearCrossEntropy(hidden, weight, targets, grad_weight, {}); });
  std::printf("linear_ce T %ld V %ld D %ld %s: peak %.3f GB above the baseline, %.1f s\n",
              static_cast<long>(tokens), static_cast<long>(vocabulary), static_cast<long>(width),
              Name(dtype), static_cast<double>(PeakKib() - before) * 1024 / 1e9, seconds);
}

int Main(const std::vector<std::string>& args) {
  if (args.size() == 3 && args[0] == "memory") {
    MeasureMemory(args[1] == "fp32" ? at::kFloat : at::kBFloat16, std::stoll(args[2]));
    return 0;
  }
  const auto wanted = [&](const char* name) {
    return args.empty() || std::find(args.begin(), args.end(), name) != args.end();
  };
  // Memory once touched stays: all peers are timed on it, not on the kernel's page faults.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
  PrintRates();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    if (wanted("norm")) BenchNorms(dtype);
    if (wanted("rope")) BenchRope(dtype);
    if (wanted("gated")) BenchGated(dtype);
    if (wanted("head")) BenchHead(dtype);
  }
  return 0;
}

}  // namespace
}  // namespace osler

int main(int argc, char** argv) {
  return osler::Main(std::vector<std::string>(argv + 1, argv + argc));
}
