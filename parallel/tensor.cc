#include "parallel/tensor.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

namespace osler {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr char kTensor[] = "tensor";

at::Tensor Gathered(Communicator& tensor, const at::Tensor& x_RD) {
  std::vector<int64_t> sizes = x_RD.sizes().vec();
  sizes[0] *= tensor.size();
  at::Tensor all_TD = at::empty(sizes, x_RD.options());
  all_TD.narrow(0, tensor.rank() * x_RD.size(0), x_RD.size(0)).copy_(x_RD);
  tensor.AllGather({all_TD.view(-1)}, "tokens").Wait();
  return all_TD;
}

at::Tensor Scattered(Communicator& tensor, const at::Tensor& x_TD) {
  const int64_t rows = x_TD.size(0) / tensor.size();
  const at::Tensor sum_TD = x_TD.clone(at::MemoryFormat::Contiguous);  // others may read x
  tensor.ReduceScatter({sum_TD.view(-1)}, "tokens").Wait();
  return sum_TD.narrow(0, tensor.rank() * rows, rows).clone();  // the rest is freed
}

void Save(AutogradContext* context, Communicator* tensor) {
  context->saved_data[kTensor] = reinterpret_cast<int64_t>(tensor);
}

Communicator& Saved(AutogradContext* context) {
  return *reinterpret_cast<Communicator*>(context->saved_data[kTensor].toInt());
}

struct GatherFunction : torch::autograd::Function<GatherFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_RD,
                            Communicator* tensor) {
    Save(context, tensor);
    return Gathered(*tensor, x_RD);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    return {Scattered(Saved(context), grads[0]), {}};
  }
};

struct ScatterFunction : torch::autograd::Function<ScatterFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TD,
                            Communicator* tensor) {
    Save(context, tensor);
    return Scattered(*tensor, x_TD);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    return {Gathered(Saved(context), grads[0]), {}};
  }
};

}  // namespace

at::Tensor GatherTokens(Communicator* tensor, const at::Tensor& x_RD) {
  if (tensor == nullptr || tensor->size() == 1) return x_RD;
  return GatherFunction::apply(x_RD, tensor);
}

at::Tensor ScatterSum(Communicator* tensor, const at::Tensor& x_TD) {
  if (tensor == nullptr || tensor->size() == 1) return x_TD;
  TORCH_CHECK(x_TD.size(0) % tensor->size() == 0, x_TD.size(0), " rows cannot be dealt to ",
              tensor->size(), " ranks");
  return ScatterFunction::apply(x_TD, tensor);
}

}  // namespace osler
