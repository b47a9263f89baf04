#include "parallel/context_attention.h"

#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "parallel/context_keys.h"
#include "parallel/context_plan.h"

namespace osler {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Keeps the way to the keys until the backward pass.
struct HeldKeys : torch::CustomClassHolder {
  explicit HeldKeys(std::shared_ptr<const ContextKeys> held) : keys(std::move(held)) {}
  std::shared_ptr<const ContextKeys> keys;
};

at::Tensor DenseRows(const at::Tensor& x_THD) {
  return x_THD.stride(2) == 1 ? x_THD : x_THD.contiguous();
}

// Saves this rank's q, k, v, the output and its log-sum-exps.
struct ContextAttentionFunction : torch::autograd::Function<ContextAttentionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_THD,
                            const at::Tensor& k_TKD, const at::Tensor& v_TKD,
                            const std::shared_ptr<const ContextKeys>& keys,
                            const AttentionOptions& options) {
    const AttentionOutput output = MakeOrRecall(options.memo, [&] {
      return keys->Forward({q_THD, k_TKD, v_TKD}, options);
    });
    context->save_for_backward({q_THD, k_TKD, v_TKD, output.out_THD, output.lse_TH});
    context->saved_data["keys"] = c10::IValue::make_capsule(c10::make_intrusive<HeldKeys>(keys));
    context->saved_data["scale"] = options.scale;
    context->saved_data["soft_cap"] = options.soft_cap;
    return output.out_THD;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const auto held =
        c10::static_intrusive_pointer_cast<HeldKeys>(context->saved_data["keys"].toCapsule());
    const IntervalAttentionGradients result =
        held->keys->Backward(DenseRows(grads[0]), {saved[0], saved[1], saved[2]},
                             {.out_THD = saved[3], .lse_TH = saved[4]},
                             {.scale = context->saved_data["scale"].toDouble(),
                              .soft_cap = context->saved_data["soft_cap"].toOptional<double>()});
    return {result.q_THD, result.k_SHD, result.v_SHD, {}, {}};
  }
};

bool Ring(const ContextAttention::Kind& kind, const ContextSplit& split, ContextMethod method) {
  if (kind.window || method == ContextMethod::kGather) return false;
  if (method == ContextMethod::kRing) return true;
  int64_t most = 0;
  for (const TokenRanges& rows : split.ranges)
    most = std::max(most, TokenCount(SeenKeys(kind.mask, rows)));
  return most > kMostGatheredKeys;
}

}  // namespace

ContextAttention::ContextAttention(Communicator& comm, const ContextSplit& split,
                                   const std::vector<Kind>& kinds, int64_t rows,
                                   ContextMethod method, at::Device device) {
  for (const Kind& kind : kinds) {
    kinds_.push_back(Ring(kind, split, method)
                         ? MakeKeyRing(comm, split, kind.mask, rows, device)
                         : MakeKeyFetch(comm, split, kind.mask, rows, device));
  }
}

ContextAttention::~ContextAttention() = default;

at::Tensor ContextAttention::Attend(size_t kind, const at::Tensor& q_THD, const at::Tensor& k_TKD,
                                    const at::Tensor& v_TKD,
                                    const AttentionOptions& options) const {
  CheckAttentionInput(q_THD, k_TKD, v_TKD, options);
  return ContextAttentionFunction::apply(DenseRows(q_THD), DenseRows(k_TKD), DenseRows(v_TKD),
                                         kinds_[kind], options);
}

}  // namespace osler
