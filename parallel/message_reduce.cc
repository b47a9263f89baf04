#include "parallel/message_reduce.h"

#include <algorithm>
#include <utility>

namespace osler {
namespace {

// Bytes of the tensor that move together.
constexpr int64_t kPieceBytes = int64_t{2} << 20;

}  // namespace

Segment ReduceOperation::Chunk::segment(int of) const {
  const Slice& slice = slices[static_cast<size_t>(of)];
  return {base + slice.begin * element, slice.count() * element};
}

ReduceOperation::ReduceOperation(Collective reduced, const Place& place, Engine& engine,
                                 uint64_t record)
    : MeetingOperation(std::move(reduced), place, engine, record) {
  if (collective().kind == CollectiveKind::kReduceScatter) {
    for (const at::Tensor& x : tensors()) CutScatter(x);
  } else {
    CutAllReduce(tensors()[0]);
  }
  small_ = !shared_ && phases_.size() == 1 && OwnBytes(phases_[0]) <= kInlineBytes;
}

void ReduceOperation::CutAllReduce(const at::Tensor& x) {
  const auto element = static_cast<int64_t>(x.element_size());
  Chunk chunk{x.scalar_type(), element, SegmentOf(x, 0, 0).data, {}};
  if (x.numel() * element <= kInlineBytes) {  // everyone sums all of it
    chunk.slices.assign(static_cast<size_t>(size()), {0, x.numel()});
    phases_.push_back({chunk});
    return;
  }
  shared_ = true;
  const int64_t piece = kPieceBytes / element;
  for (int64_t begin = 0; begin < x.numel(); begin += piece) {
    chunk.slices.clear();
    for (int r = 0; r < size(); ++r) {
      const Slice slice = SliceOf(std::min(piece, x.numel() - begin), r, size());
      chunk.slices.push_back({begin + slice.begin, begin + slice.end});
    }
    phases_.push_back({chunk});
  }
}

void ReduceOperation::CutScatter(const at::Tensor& x) {
  const auto element = static_cast<int64_t>(x.element_size());
  Chunk chunk{x.scalar_type(), element, SegmentOf(x, 0, 0).data, {}};
  const int64_t part = x.numel() / size();
  const int64_t piece = std::max<int64_t>(1, kPieceBytes / element / size());
  for (int64_t begin = 0; begin < part; begin += piece) {
    const int64_t end = std::min(part, begin + piece);
    chunk.slices.clear();
    for (int r = 0; r < size(); ++r) chunk.slices.push_back({r * part + begin, r * part + end});
    const int64_t bytes = (end - begin) * element;
    if (phases_.empty() || (OwnBytes(phases_.back()) + bytes) * size() > kPieceBytes)
      phases_.emplace_back();  // small tensors go together
    phases_.back().push_back(chunk);
  }
}

int64_t ReduceOperation::OwnBytes(const Phase& phase) const {
  int64_t bytes = 0;
  for (const Chunk& chunk : phase) bytes += chunk.segment(rank()).bytes;
  return bytes;
}

Segments ReduceOperation::Payload(int peer) const {
  Segments segments;
  if (!small_) return segments;
  for (const Chunk& chunk : phases_[0]) segments.push_back(chunk.segment(peer));
  return segments;
}

Operation::Next ReduceOperation::Begin(Exchange& exchange) {
  if (small_) {
    std::vector<const char*> sources;
    for (int r = 0; r < size(); ++r) sources.push_back(message_from(r) + sizeof(Note));
    Sum(phases_[0], std::move(sources));
    return Next::kDone;
  }
  Collect(0, exchange);
  return Next::kTransfers;
}

Operation::Next ReduceOperation::Continue(Exchange& exchange) {
  if (phase_ == phases_.size()) return Next::kDone;
  const size_t collected = phase_++;
  if (phase_ < phases_.size()) Collect(phase_, exchange);
  SumScratch(collected);
  if (shared_) Share(phases_[collected], exchange);
  return Next::kTransfers;
}

void ReduceOperation::Collect(size_t phase, Exchange& exchange) {
  std::unique_ptr<char[]>& scratch = scratch_[phase % 2];
  // The first two phases are the largest of their parity, but for tensors of mixed sizes.
  if (scratch == nullptr) {
    int64_t most = 0;
    for (size_t p = phase; p < phases_.size(); p += 2) most = std::max(most, OwnBytes(phases_[p]));
    scratch.reset(new char[static_cast<size_t>(most * (size() - 1))]);
  }
  char* at = scratch.get();
  for (int r = 0; r < size(); ++r) {
    if (own(r)) continue;
    for (const Chunk& chunk : phases_[phase]) {
      const int64_t bytes = chunk.segment(rank()).bytes;
      exchange.Receive(r, at, bytes);
      at += bytes;
    }
  }
  for (const int r : peers()) {
    for (const Chunk& chunk : phases_[phase]) {
      const Segment segment = chunk.segment(r);
      exchange.Send(r, segment.data, segment.bytes);
    }
  }
}

void ReduceOperation::SumScratch(size_t phase) {
  std::vector<const char*> sources;
  const char* at = scratch_[phase % 2].get();
  for (int r = 0; r < size(); ++r) {
    sources.push_back(at);
    if (!own(r)) at += OwnBytes(phases_[phase]);
  }
  Sum(phases_[phase], std::move(sources));
}

void ReduceOperation::Sum(const Phase& phase, std::vector<const char*> sources) const {
  std::vector<const void*> inputs(sources.size());
  for (const Chunk& chunk : phase) {
    const Segment mine = chunk.segment(rank());
    for (size_t r = 0; r < sources.size(); ++r) {
      inputs[r] = own(static_cast<int>(r)) ? mine.data : sources[r];
      sources[r] += mine.bytes;
    }
    void* out = mine.data;
    ReduceInOrder(chunk.dtype, collective().op, inputs, mine.bytes / chunk.element,
                  absl::MakeConstSpan(&out, 1));
  }
}

void ReduceOperation::Share(const Phase& phase, Exchange& exchange) {
  for (const Chunk& chunk : phase) {
    for (const int r : peers()) {
      const Segment theirs = chunk.segment(r);
      exchange.Receive(r, theirs.data, theirs.bytes);
    }
    const Segment mine = chunk.segment(rank());
    for (const int r : peers()) exchange.Send(r, mine.data, mine.bytes);
  }
}

}  // namespace osler
