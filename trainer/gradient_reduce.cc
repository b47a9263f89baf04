#include "trainer/gradient_reduce.h"

#include <ATen/ops/cat.h>

#include <vector>

#include "trainer/optim/adamw.h"

namespace osler {
namespace {

constexpr int64_t kBucketBytes = 32 << 20;

void ReduceBucket(std::vector<at::Tensor>& bucket, Communicator& comm) {
  if (bucket.empty()) return;
  if (bucket.size() == 1) {
    comm.AllReduce(bucket[0], ReduceOp::kSum).Wait();
  } else {
    std::vector<at::Tensor> flat;
    for (const at::Tensor& gradient : bucket) flat.push_back(gradient.flatten());
    at::Tensor joined = at::cat(flat);
    comm.AllReduce(joined, ReduceOp::kSum).Wait();
    int64_t offset = 0;
    for (at::Tensor& gradient : bucket) {
      gradient.flatten().copy_(joined.narrow(0, offset, gradient.numel()));
      offset += gradient.numel();
    }
  }
  bucket.clear();
}

}  // namespace

void AllReduceGradients(ParameterStore& store, Communicator& comm) {
  if (comm.size() == 1) return;
  std::vector<at::Tensor> bucket;
  int64_t bytes = 0;
  for (size_t i = 0; i < store.slots().size(); ++i) {
    if (!store.slots()[i].trainable) continue;
    at::Tensor& gradient = store.GradientOf(static_cast<int64_t>(i));
    const int64_t size = gradient.numel() * gradient.element_size();
    if (bytes + size > kBucketBytes) {
      ReduceBucket(bucket, comm);
      bytes = 0;
    }
    bucket.push_back(gradient);
    bytes += size;
  }
  ReduceBucket(bucket, comm);
}

struct GradientReducer::Impl {
  ParameterStore& store;
  Mesh& mesh;
};

GradientReducer::GradientReducer(ParameterStore& store, Mesh& mesh, const ReduceOptions&)
    : impl_(new Impl{store, mesh}) {}
GradientReducer::~GradientReducer() = default;

void GradientReducer::Begin(int64_t) { impl_->store.ZeroGradients(); }
void GradientReducer::Add(int64_t slot, const at::Tensor& gradient) {
  impl_->store.AddGradient(slot, gradient);
}
at::Tensor GradientReducer::Accumulator(int64_t slot) { return impl_->store.GradientOf(slot); }
void GradientReducer::BlockDone(std::span<const int64_t>) {}
void GradientReducer::Finish() { AllReduceGradients(impl_->store, impl_->mesh.comm(Axis::kData)); }
double GradientReducer::GlobalNorm() { return GlobalGradientNorm(impl_->store); }

}  // namespace osler
