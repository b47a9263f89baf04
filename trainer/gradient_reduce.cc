#include "trainer/gradient_reduce.h"

#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/accumulate.h"
#include "kernels/cuda/adamw_cuda.h"

namespace osler {
namespace {

// Whether `x` is dense values of `count` elements that nobody else can see.
bool IsPrivate(const at::Tensor& x, int64_t count) {
  return x.is_contiguous() && x.numel() == count && x.storage_offset() == 0 && x.use_count() == 1 &&
         x.storage().use_count() == 1;
}

// In fp64, of a 1-D tensor: a part of it at a time, since the sum in fp64 copies what it sums.
double SumOfSquares(const at::Tensor& x) {
  double squares = 0;
  for (int64_t begin = 0; begin < x.numel(); begin += kNormChunk) {
    const at::Tensor part = x.narrow(0, begin, std::min(kNormChunk, x.numel() - begin));
    const double norm = at::linalg_vector_norm(part, 2, {}, false, at::kDouble).item<double>();
    squares += norm * norm;
  }
  return squares;
}

// The same of many tensors of one device, fp64 [1] on it: nobody waits for it.
at::Tensor SumOfSquaresOnDevice(const std::vector<at::Tensor>& pieces, at::Device device) {
  if (pieces.empty()) return at::zeros({1}, at::TensorOptions(device).dtype(at::kDouble));
  if (at::Tensor sum = SquaresSumCuda(pieces); sum.defined()) return sum;
  return at::stack(at::_foreach_norm(pieces, 2, at::kDouble)).square_().sum(0, /*keepdim=*/true);
}

}  // namespace

GradientReducer::GradientReducer(ParameterStore& store, Mesh& mesh, const ReduceOptions& options)
    : store_(store),
      mesh_(mesh),
      options_(options),
      done_(store.slots().size()),
      whole_(store.slots().size()) {
  MakeBuckets();
  // What stays is asked for before what comes and goes: that would leave gaps between it.
  for (const Bucket& bucket : buckets_) {
    for (const int64_t slot : bucket.slots) store_.GradientPieceOf(slot);
  }
}

bool GradientReducer::Reduces(int64_t slot) const {
  return store_.slot(slot).trainable && store_.slot(slot).present;
}

// The ranks of the tensor axis that hold the same slice; null where this rank is alone. Slots come
// in the same order on all of them, and so do the splits.
Communicator* GradientReducer::GroupOfCopies(int64_t slot) {
  Communicator& tensor = mesh_.comm(Axis::kTensor);
  const int copies = store_.slot(slot).slice.copies;
  if (copies == 1 || copies == tensor.size()) return copies == 1 ? nullptr : &tensor;
  std::unique_ptr<Communicator>& group = copy_groups_[copies];
  if (group == nullptr) group = tensor.Split(tensor.rank() / copies, tensor.rank(), "copies");
  return group.get();
}

std::vector<Communicator*> GradientReducer::SumsOf(int64_t slot) {
  Communicator* tied = slot == options_.tied_slot ? options_.tied_group : nullptr;
  std::vector<Communicator*> groups;
  for (Communicator* group :
       {GroupOfCopies(slot), tied, &mesh_.comm(Axis::kContext), &mesh_.comm(Axis::kData)}) {
    if (group != nullptr && group->size() > 1) groups.push_back(group);
  }
  return groups;
}

// A model declares its parameters in the order of its forward pass, so descending slots are the
// order of a backward pass. A bucket is complete with its last slot.
void GradientReducer::MakeBuckets() {
  std::map<std::vector<Communicator*>, std::pair<Bucket, int64_t>> open;  // with its bytes
  for (size_t i = store_.slots().size(); i-- > 0;) {
    const auto slot = static_cast<int64_t>(i);
    if (!Reduces(slot)) continue;
    const std::vector<Communicator*> sums = SumsOf(slot);
    auto& [bucket, bytes] = open[sums];
    const int64_t size = store_.PieceCount(slot) * store_.layout().shard_size *
                         static_cast<int64_t>(c10::elementSize(SentType(slot)));
    if (bytes + size > options_.bucket_bytes && !bucket.slots.empty()) {
      buckets_.push_back(std::exchange(bucket, {}));
      bytes = 0;
    }
    bucket.slots.push_back(slot);
    bucket.sums = sums;
    bytes += size;
  }
  for (auto& [sums, last] : open) buckets_.push_back(std::move(last.first));
  std::sort(buckets_.begin(), buckets_.end(),
            [](const Bucket& a, const Bucket& b) { return a.slots.back() > b.slots.back(); });
}

at::ScalarType GradientReducer::SentType(int64_t slot) const {
  return options_.type == ReductionType::kBf16 ? at::kBFloat16 : store_.GradientType(slot);
}

std::string_view GradientReducer::NameOf(const Bucket& bucket) const {
  return store_.slot(bucket.slots.front()).name;
}

void GradientReducer::Begin(int64_t micro_batches) {
  store_.ZeroGradients();
  micro_batches_ = micro_batches;
  launched_ = settled_ = 0;
  std::fill(done_.begin(), done_.end(), 0);
}

void GradientReducer::Add(int64_t slot, at::Tensor gradient) {
  if (!store_.cuts_gradients()) return store_.AddGradient(slot, gradient);
  at::Tensor& whole = whole_[static_cast<size_t>(slot)];
  const int64_t padded = store_.PieceCount(slot) * store_.layout().shard_size;
  if (!whole.defined() && !gradient.is_sparse() && IsPrivate(gradient, padded)) {
    whole = gradient.view({-1});
    return;
  }
  at::Tensor sum = Accumulator(slot);
  AddGradientTo(sum, gradient);
}

at::Tensor GradientReducer::Accumulator(int64_t slot) {
  if (!store_.cuts_gradients()) return store_.GradientOf(slot);
  return WholeSum(slot).narrow(0, 0, store_.LocalCount(slot)).view(store_.LocalShape(slot));
}

at::Tensor& GradientReducer::WholeSum(int64_t slot) {
  at::Tensor& whole = whole_[static_cast<size_t>(slot)];
  const at::ScalarType type = store_.GradientType(slot);
  if (!whole.defined()) {
    whole = at::zeros({store_.PieceCount(slot) * store_.layout().shard_size},
                      store_.slot(slot).local.options().dtype(type));
  } else if (whole.scalar_type() != type) {
    whole = whole.to(type);
  }
  return whole;
}

void GradientReducer::BlockDone(std::span<const int64_t> slots) {
  std::vector<int64_t> reduced;
  for (const int64_t slot : slots) {
    if (Reduces(slot)) reduced.push_back(slot);
  }
  if (store_.cuts_gradients()) {
    FinishScatter();
    StartScatter(reduced);
  } else {
    for (const int64_t slot : reduced) Count(slot);
  }
  LaunchComplete();
}

void GradientReducer::StartScatter(std::span<const int64_t> slots) {
  if (slots.empty()) return;
  scatter_.slots.assign(slots.begin(), slots.end());
  for (const int64_t slot : slots) {
    at::Tensor& whole = whole_[static_cast<size_t>(slot)];
    if (!whole.defined()) WholeSum(slot);
    scatter_.flats.push_back(std::exchange(whole, {}).to(SentType(slot)));
  }
  scatter_.handle =
      mesh_.comm(Axis::kShard).ReduceScatter(scatter_.flats, store_.slot(slots.front()).name);
}

void GradientReducer::FinishScatter() {
  const Scatter done = std::exchange(scatter_, {});
  Handle(done.handle).Wait();
  for (size_t i = 0; i < done.slots.size(); ++i) {
    const int64_t slot = done.slots[i];
    Accumulate(store_.GradientPieceOf(slot),
               done.flats[i].narrow(0, store_.PieceBegin(slot), store_.PieceCount(slot)));
    Count(slot);
  }
}

bool GradientReducer::Complete(const Bucket& bucket) const {
  return std::all_of(bucket.slots.begin(), bucket.slots.end(), [&](int64_t slot) {
    return done_[static_cast<size_t>(slot)] >= micro_batches_;
  });
}

// Buckets are launched in their order, whatever the order in which they become complete: it must
// be the same on all ranks. Those before have had the time of some blocks for what is under way.
void GradientReducer::LaunchComplete() {
  while (launched_ < buckets_.size() && Complete(buckets_[launched_])) {
    for (size_t i = settled_; i < launched_; ++i) {
      const bool has_more = buckets_[i].next < buckets_[i].sums.size();
      if (!has_more && i + kBucketsInFlight > launched_) continue;
      if (!Advance(buckets_[i]) && i == settled_) ++settled_;
    }
    Launch(buckets_[launched_++]);
  }
}

void GradientReducer::Launch(Bucket& bucket) {
  bucket.next = 0;
  const bool scatters = store_.layout().shard_size > 1 && !store_.cuts_gradients();
  if (!scatters) {
    for (const int64_t slot : bucket.slots) store_.GradientPieceOf(slot);
    if (!bucket.sums.empty()) StartSum(bucket);
    return;
  }
  for (const int64_t slot : bucket.slots) {
    bucket.scattered.push_back(store_.Flat(slot, store_.GradientOf(slot)).to(SentType(slot)));
  }
  bucket.handle = mesh_.comm(Axis::kShard).ReduceScatter(bucket.scattered, NameOf(bucket));
}

// Waits for what is under way and starts what follows it; false when nothing does.
bool GradientReducer::Advance(Bucket& bucket) {
  bucket.handle.Wait();
  bucket.handle = {};
  for (size_t i = 0; i < bucket.scattered.size(); ++i) {
    const int64_t slot = bucket.slots[i];
    at::Tensor& piece = store_.GradientPieceOf(slot);
    const at::Tensor sum =
        bucket.scattered[i].narrow(0, store_.PieceBegin(slot), store_.PieceCount(slot));
    if (!sum.is_alias_of(piece)) piece.copy_(sum);
  }
  bucket.scattered.clear();
  if (bucket.next < bucket.sums.size()) {
    StartSum(bucket);
    return true;
  }
  TakeSum(bucket);
  return false;
}

void GradientReducer::StartSum(Bucket& bucket) {
  if (!bucket.joined.defined()) {
    std::vector<at::Tensor> pieces;
    for (const int64_t slot : bucket.slots) {
      pieces.push_back(store_.GradientPieceOf(slot).to(SentType(slot)));
    }
    bucket.joined = pieces.size() == 1 ? pieces[0] : at::cat(pieces);
  }
  bucket.handle =
      bucket.sums[bucket.next++]->AllReduce(bucket.joined, ReduceOp::kSum, NameOf(bucket));
}

void GradientReducer::TakeSum(Bucket& bucket) {
  if (!bucket.joined.defined()) return;
  int64_t offset = 0;
  for (const int64_t slot : bucket.slots) {
    at::Tensor& piece = store_.GradientPieceOf(slot);
    if (!bucket.joined.is_alias_of(piece)) {
      piece.copy_(bucket.joined.narrow(0, offset, piece.numel()));
    }
    offset += piece.numel();
  }
  bucket.joined.reset();
}

void GradientReducer::Finish() {
  FinishScatter();
  while (launched_ < buckets_.size()) Launch(buckets_[launched_++]);
  for (bool more = true; more;) {
    more = false;
    for (Bucket& bucket : buckets_) more = Advance(bucket) || more;
  }
}

double GradientReducer::GlobalNorm() const {
  double squares = 0;
  std::vector<at::Tensor> pieces;  // on a device, whose sum is made at once
  const at::Device device = store_.layout().device;
  const int tensor_rank = mesh_.comm(Axis::kTensor).rank();
  for (size_t i = 0; i < store_.slots().size(); ++i) {
    const auto slot = static_cast<int64_t>(i);
    const bool other_copy = options_.tied_group != nullptr && slot == options_.tied_slot &&
                            options_.tied_group->rank() > 0;
    if (!Reduces(slot) || other_copy || tensor_rank % store_.slot(slot).slice.copies > 0) continue;
    const at::Tensor& piece = store_.slot(slot).gradient_piece;
    if (device.is_cpu()) {
      squares += SumOfSquares(piece);
    } else {
      pieces.push_back(piece);
    }
  }
  const at::Tensor sum =
      device.is_cpu() ? at::full({1}, squares, at::kDouble) : SumOfSquaresOnDevice(pieces, device);
  for (const Axis axis : {Axis::kShard, Axis::kTensor, Axis::kPipeline}) {
    mesh_.comm(axis).AllReduce(sum, ReduceOp::kSum, "gradient norm").Wait();
  }
  return std::sqrt(sum.item<double>());
}

}  // namespace osler
