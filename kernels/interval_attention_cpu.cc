#include "kernels/interval_attention_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <limits>
#include <mutex>
#include <optional>
#include <queue>
#include <vector>

#include "kernels/interval_attention_tiles.h"
#include "kernels/interval_plan.h"

namespace osler {

namespace portable {
const AttentionKernels& AttentionKernelsFor(AttentionType type);
}
namespace avx2 {
const AttentionKernels& AttentionKernelsFor(AttentionType type);
}
namespace avx512 {
const AttentionKernels& AttentionKernelsFor(AttentionType type);
}
namespace avx512_bf16 {
const AttentionKernels& AttentionKernelsFor(AttentionType type);
}
namespace amx {
const AttentionKernels& AttentionKernelsFor(AttentionType type);
}

const AttentionKernels& GetAttentionKernels(CpuIsa isa, AttentionType type) {
  using For = const AttentionKernels& (*)(AttentionType);
  return SelectIsa<For>(isa, portable::AttentionKernelsFor, avx2::AttentionKernelsFor,
                        avx512::AttentionKernelsFor, avx512_bf16::AttentionKernelsFor,
                        amx::AttentionKernelsFor)(type);
}

namespace {

using Kernel = void (*)(const AttentionArguments&, const AttentionBlock&, std::byte*);

at::ScalarType SumType(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

AttentionType TypeOf(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kDouble: return AttentionType::kFp64;
    case at::kFloat: return AttentionType::kFp32;
    default: return AttentionType::kBf16;
  }
}

AttentionRows RowsOf(const at::Tensor& x_THD) {
  return {x_THD.const_data_ptr(), x_THD.stride(0), x_THD.stride(1)};
}

AttentionHeads HeadsOf(const IntervalAttentionInput& input) {
  return {input.k_SHD.size(1), input.q_THD.size(1) / input.k_SHD.size(1)};
}

AttentionArguments ArgumentsOf(const IntervalAttentionInput& input, const AttentionOutput& output) {
  const AttentionHeads heads = HeadsOf(input);
  AttentionArguments args{};
  args.key_heads = heads.key_heads;
  args.group = heads.group;
  args.width = input.q_THD.size(2);
  args.scale = input.options.scale;
  args.soft_cap = input.options.soft_cap.value_or(0);
  args.lo = input.mask.lo_T.const_data_ptr<int32_t>();
  args.hi = input.mask.hi_T.const_data_ptr<int32_t>();
  args.q = RowsOf(input.q_THD);
  args.k = RowsOf(input.k_SHD);
  args.v = RowsOf(input.v_SHD);
  args.out = RowsOf(output.out_THD);
  args.lse = output.lse_TH.data_ptr();
  return args;
}

// Steps that may run now, those with the longest path first.
class StepQueue {
 public:
  explicit StepQueue(const std::vector<AttentionStep>& steps)
      : steps_(steps), left_(steps.size()), before_{steps} {
    for (size_t i = 0; i < steps.size(); ++i) {
      waits_.push_back(steps[i].waits);
      if (steps[i].waits == 0) ready_.push(i);
    }
  }

  // Waits for a step; nothing once all have been taken.
  std::optional<size_t> Take() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return left_ == 0 || !ready_.empty(); });
    if (left_ == 0) return std::nullopt;
    const size_t step = ready_.top();
    ready_.pop();
    if (--left_ == 0) changed_.notify_all();
    return step;
  }

  void Finish(size_t step) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const int32_t next : steps_[step].next) {
      if (next < 0 || --waits_[static_cast<size_t>(next)] > 0) continue;
      ready_.push(static_cast<size_t>(next));
      changed_.notify_one();
    }
  }

 private:
  struct Before {
    const std::vector<AttentionStep>& steps;
    bool operator()(size_t a, size_t b) const { return steps[a].path < steps[b].path; }
  };
  const std::vector<AttentionStep>& steps_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t left_;  // not taken yet
  std::vector<int32_t> waits_;
  Before before_;
  std::priority_queue<size_t, std::vector<size_t>, Before> ready_{before_};
};

// Which thread runs a step, and when, changes no bit.
void RunSteps(Kernel kernel, int64_t scratch_bytes, const AttentionArguments& args,
              const std::vector<AttentionStep>& steps) {
  const int64_t workers =
      std::min(static_cast<int64_t>(steps.size()), int64_t{at::get_num_threads()});
  const at::Tensor scratch = at::empty({workers * scratch_bytes}, at::kByte);
  auto* const pieces = static_cast<std::byte*>(scratch.mutable_data_ptr());
  StepQueue queue(steps);
  at::parallel_for(0, workers, 1, [&](int64_t worker, int64_t) {
    while (const std::optional<size_t> step = queue.Take()) {
      kernel(args, steps[*step].block, pieces + worker * scratch_bytes);
      queue.Finish(*step);
    }
  });
}

// out of type `out`: q's, or that of sums.
AttentionOutput Forward(const IntervalAttentionInput& input, at::ScalarType out, CpuIsa isa) {
  const at::Tensor& q_THD = input.q_THD;
  CheckIntervals(input.mask, q_THD.size(0), input.k_SHD.size(0));
  const AttentionOutput output{
      .out_THD = at::empty(q_THD.sizes(), q_THD.options().dtype(out)),
      .lse_TH = at::empty({q_THD.size(0), q_THD.size(1)}, q_THD.options().dtype(SumType(q_THD)))};
  if (input.mask.lo_T.eq(input.mask.hi_T).any().item<bool>()) {
    output.out_THD.zero_();
    output.lse_TH.fill_(-std::numeric_limits<double>::infinity());
  }
  AttentionArguments args = ArgumentsOf(input, output);
  args.out_sums = out == SumType(q_THD) ? output.out_THD.mutable_data_ptr() : nullptr;
  const AttentionKernels& kernels = GetAttentionKernels(isa, TypeOf(q_THD));
  RunSteps(kernels.forward, kernels.forward_scratch_bytes(q_THD.size(2)), args,
           PlanForward(input.mask, HeadsOf(input)));
  return output;
}

}  // namespace

AttentionOutput IntervalAttentionForwardCpu(const IntervalAttentionInput& input, CpuIsa isa) {
  return Forward(input, input.q_THD.scalar_type(), isa);
}

AttentionOutput IntervalAttentionPartCpu(const IntervalAttentionInput& input, CpuIsa isa) {
  return Forward(input, SumType(input.q_THD), isa);
}

IntervalAttentionGradients IntervalAttentionGradientSumsCpu(const AttentionOutput& grad,
                                                            const IntervalAttentionInput& input,
                                                            const AttentionOutput& output,
                                                            CpuIsa isa) {
  const at::Tensor& q_THD = input.q_THD;
  const auto sums = q_THD.options().dtype(SumType(q_THD));
  IntervalAttentionGradients sum{.q_THD = at::zeros(q_THD.sizes(), sums),
                                 .k_SHD = at::zeros(input.k_SHD.sizes(), sums),
                                 .v_SHD = at::zeros(input.v_SHD.sizes(), sums)};
  AttentionArguments args = ArgumentsOf(input, output);
  args.grad_out = RowsOf(grad.out_THD);
  args.grad_lse = grad.lse_TH.defined() ? grad.lse_TH.const_data_ptr() : nullptr;
  args.grad_q = sum.q_THD.mutable_data_ptr();
  args.grad_k = sum.k_SHD.mutable_data_ptr();
  args.grad_v = sum.v_SHD.mutable_data_ptr();
  const AttentionKernels& kernels = GetAttentionKernels(isa, TypeOf(q_THD));
  RunSteps(kernels.backward, kernels.backward_scratch_bytes(q_THD.size(2)), args,
           PlanBackward(input.mask, HeadsOf(input), q_THD.size(2)));
  return sum;
}

IntervalAttentionGradients IntervalAttentionBackwardCpu(const AttentionOutput& grad,
                                                        const IntervalAttentionInput& input,
                                                        const AttentionOutput& output, CpuIsa isa) {
  const IntervalAttentionGradients sum = IntervalAttentionGradientSumsCpu(grad, input, output, isa);
  const at::ScalarType dtype = input.q_THD.scalar_type();
  return {sum.q_THD.to(dtype), sum.k_SHD.to(dtype), sum.v_SHD.to(dtype)};
}

}  // namespace osler
