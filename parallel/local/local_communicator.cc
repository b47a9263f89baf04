#include "parallel/local/local_communicator.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "parallel/reduce.h"

namespace osler {
namespace {

enum class Call { kAllReduce, kBroadcast, kBarrier, kSplit };

std::string_view NameOf(Call call) {
  switch (call) {
    case Call::kAllReduce: return "all-reduce";
    case Call::kBroadcast: return "broadcast";
    case Call::kBarrier: return "barrier";
    case Call::kSplit: return "split";
  }
  return "";
}

class Group;

// What a rank brings to a collective. Written by its owner before the first meeting and read by
// others between that and the last one, so the meetings' mutex orders every access.
struct Offer {
  Call call = Call::kBarrier;
  void* data = nullptr;
  int64_t count = 0;
  at::ScalarType dtype = at::kFloat;
  ReduceOp op = ReduceOp::kSum;
  int root = 0, color = 0, key = 0;
  std::shared_ptr<Group> made = {};  // Split: by the first rank of each color

  std::string Describe() const {
    if (call == Call::kBarrier || call == Call::kSplit) return std::string(NameOf(call));
    return absl::StrCat(std::string(NameOf(call)), " of ", count, " ", c10::toString(dtype), " (",
                        call == Call::kBroadcast ? absl::StrCat("root ", root)
                        : op == ReduceOp::kSum   ? "sum"
                                                 : "max",
                        ")");
  }
  bool Matches(const Offer& other) const {
    return std::tie(call, count, dtype, op, root) ==
           std::tie(other.call, other.count, other.dtype, other.op, other.root);
  }
};

// The state that the ranks of one group share.
class Group {
 public:
  explicit Group(int size) : offers_(static_cast<size_t>(size)) {}

  int size() const { return static_cast<int>(offers_.size()); }
  Offer& offer(int rank) { return offers_[static_cast<size_t>(rank)]; }

  // Returns when all ranks have come; throws when one has left and so never will.
  void Meet(int rank, Call call) {
    std::unique_lock lock(mutex_);
    ThrowIfLeft(rank, call);
    const int64_t meeting = meetings_;
    if (++arrived_ == size()) {
      arrived_ = 0;
      ++meetings_;
      changed_.notify_all();
      return;
    }
    changed_.wait(lock, [&] { return meetings_ != meeting || left_.has_value(); });
    // A rank may leave right after a meeting that was complete: that meeting still counts.
    if (meetings_ == meeting) ThrowIfLeft(rank, call);
  }

  void Leave(int rank) {
    const std::lock_guard lock(mutex_);
    if (!left_.has_value()) left_ = rank;
    changed_.notify_all();
  }

 private:
  void ThrowIfLeft(int rank, Call call) const {
    if (!left_.has_value()) return;
    C10_THROW_ERROR(DistError, absl::StrCat("rank ", *left_, " of ", size(), " left before the ",
                                            std::string(NameOf(call)), " that rank ", rank,
                                            " waited in: see rank ", *left_, "'s own error"));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  int64_t meetings_ = 0;
  std::optional<int> left_;  // the first rank that left; the group is then of no further use
  std::vector<Offer> offers_;
};

class LocalCommunicator : public Communicator {
 public:
  LocalCommunicator(std::shared_ptr<Group> group, int rank)
      : group_(std::move(group)), rank_(rank) {}
  ~LocalCommunicator() override { group_->Leave(rank_); }

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }
  std::string backend() const override { return "local"; }
  void Abandon() override { group_->Leave(rank_); }

  // Each rank reduces its slice of all ranks' tensors and writes the result into all of them: no
  // copy, no extra memory.
  void AllReduce(at::Tensor& x, ReduceOp op) override {
    CheckCollectiveTensor(x);
    if (size() == 1) return;
    Open({.call = Call::kAllReduce,
          .data = x.mutable_data_ptr(),
          .count = x.numel(),
          .dtype = x.scalar_type(),
          .op = op});
    const Slice slice = SliceOf(x.numel(), rank_, size());
    if (slice.count() > 0) {
      std::vector<void*> slices;
      for (int r = 0; r < size(); ++r) {
        slices.push_back(static_cast<char*>(group_->offer(r).data) +
                         slice.begin * static_cast<int64_t>(x.element_size()));
      }
      const std::vector<const void*> sources(slices.begin(), slices.end());
      ReduceInOrder(x.scalar_type(), op, sources, slice.count(), absl::MakeConstSpan(slices));
    }
    group_->Meet(rank_, Call::kAllReduce);
  }

  void Broadcast(at::Tensor& x, int root) override {
    CheckCollectiveTensor(x);
    TORCH_CHECK(root >= 0 && root < size(), "broadcast from rank ", root, " of a group of ",
                size());
    if (size() == 1) return;
    Open({.call = Call::kBroadcast,
          .data = x.mutable_data_ptr(),
          .count = x.numel(),
          .dtype = x.scalar_type(),
          .root = root});
    if (rank_ != root && x.nbytes() > 0) {
      std::memcpy(x.mutable_data_ptr(), group_->offer(root).data, x.nbytes());
    }
    group_->Meet(rank_, Call::kBroadcast);
  }

  void Barrier() override { Open({.call = Call::kBarrier}); }

  std::unique_ptr<Communicator> Split(int color, int key) override {
    Open({.call = Call::kSplit, .color = color, .key = key});
    std::vector<std::pair<int, int>> members;  // (key, old rank)
    int maker = size();
    for (int r = 0; r < size(); ++r) {
      if (group_->offer(r).color != color) continue;
      members.emplace_back(group_->offer(r).key, r);
      maker = std::min(maker, r);
    }
    std::sort(members.begin(), members.end());
    if (rank_ == maker)
      group_->offer(rank_).made = std::make_shared<Group>(static_cast<int>(members.size()));
    group_->Meet(rank_, Call::kSplit);
    const auto self = std::find(members.begin(), members.end(), std::pair(key, rank_));
    auto split = std::make_unique<LocalCommunicator>(group_->offer(maker).made,
                                                     static_cast<int>(self - members.begin()));
    group_->Meet(
        rank_,
        Call::kSplit);  // nobody may start the next collective while others still read `made`
    return split;
  }

 private:
  // Publishes this rank's part and waits for all; throws on every rank alike when ranks disagree on
  // the collective.
  void Open(Offer offer) {
    const Call call = offer.call;
    group_->offer(rank_) = std::move(offer);
    group_->Meet(rank_, call);
    std::optional<int> odd;
    for (int r = 1; r < size() && !odd.has_value(); ++r) {
      if (!group_->offer(r).Matches(group_->offer(0))) odd = r;
    }
    if (!odd.has_value()) {
      if (call == Call::kBarrier) group_->Meet(rank_, call);
      return;
    }
    const std::string message =
        absl::StrCat("ranks called different collectives: rank 0 ", group_->offer(0).Describe(),
                     ", rank ", *odd, " ", group_->offer(*odd).Describe());
    group_->Meet(rank_, call);  // all have read the offers
    group_->Leave(rank_);
    C10_THROW_ERROR(DistError, message);
  }

  std::shared_ptr<Group> group_;
  int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeLocalGroup(int size) {
  OSLER_CHECK(size >= 1);
  auto group = std::make_shared<Group>(size);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int r = 0; r < size; ++r) ranks.push_back(std::make_unique<LocalCommunicator>(group, r));
  return ranks;
}

}  // namespace osler
