#include "parallel/message_operations.h"

#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "parallel/message_reduce.h"

namespace osler {
namespace {

// Bytes that go from one place to another: all-gather, broadcast, all-to-all, barrier.
class MoveOperation : public MeetingOperation {
 public:
  using MeetingOperation::MeetingOperation;

 protected:
  Segments Payload(int peer) const override {
    Segments outgoing = Outgoing(peer);
    return FitsNote(outgoing) ? std::move(outgoing) : Segments{};
  }

  Next Begin(Exchange& exchange) override {
    for (const int r : peers()) {
      const Segments incoming = Incoming(r);
      if (FitsNote(incoming)) {
        Unpack(incoming, payload_from(r));
      } else {
        for (const Segment& s : incoming) exchange.Receive(r, s.data, s.bytes);
      }
    }
    for (const int r : peers()) {
      const Segments outgoing = Outgoing(r);
      if (FitsNote(outgoing)) continue;
      for (const Segment& s : outgoing) exchange.Send(r, s.data, s.bytes);
    }
    if (collective().kind == CollectiveKind::kAllToAll) CopyOwnPart();
    return Next::kTransfers;
  }
  Next Continue(Exchange&) override { return Next::kDone; }

 private:
  static Segments Whole(const at::Tensor& x) { return {SegmentOf(x, 0, x.numel())}; }

  Segments Parts(int of) const {
    Segments parts;
    for (const at::Tensor& x : tensors()) {
      const int64_t part = x.numel() / size();
      parts.push_back(SegmentOf(x, of * part, part));
    }
    return parts;
  }

  Segments Outgoing(int peer) const {
    switch (collective().kind) {
      case CollectiveKind::kAllGather: return Parts(rank());
      case CollectiveKind::kAllToAll: return Whole(tensors()[static_cast<size_t>(peer)]);
      case CollectiveKind::kBroadcast:
        return rank() == collective().peer ? Whole(tensors()[0]) : Segments{};
      default: return {};
    }
  }

  Segments Incoming(int peer) const {
    switch (collective().kind) {
      case CollectiveKind::kAllGather: return Parts(peer);
      case CollectiveKind::kAllToAll: return Whole(collective().receive[static_cast<size_t>(peer)]);
      case CollectiveKind::kBroadcast:
        return peer == collective().peer ? Whole(tensors()[0]) : Segments{};
      default: return {};
    }
  }

  static void Unpack(const Segments& segments, const char* from) {
    for (const Segment& segment : segments) {
      if (segment.bytes > 0) std::memcpy(segment.data, from, static_cast<size_t>(segment.bytes));
      from += segment.bytes;
    }
  }

  void CopyOwnPart() const {
    const auto self = static_cast<size_t>(rank());
    const Segment from = SegmentOf(tensors()[self], 0, tensors()[self].numel());
    if (from.bytes > 0) {
      std::memcpy(collective().receive[self].mutable_data_ptr(), from.data,
                  static_cast<size_t>(from.bytes));
    }
  }
};

class PairOperation : public Operation {
 public:
  PairOperation(Collective collective, Engine& engine, uint64_t record)
      : Operation(engine, record), collective_(std::move(collective)) {}

  bool point_to_point() const override { return true; }
  std::string Describe() const override {
    return absl::StrCat(osler::Describe(NoteOf(collective_, 0)),
                        collective_.what.empty() ? "" : ", ", collective_.what);
  }
  absl::StatusOr<Next> Advance(Exchange& exchange) override {
    const Segment all = SegmentOf(collective_.tensors[0], 0, collective_.tensors[0].numel());
    if (!started_) {
      started_ = true;
      if (collective_.kind == CollectiveKind::kSend) {
        exchange.Send(collective_.peer, all.data, all.bytes);
      } else {
        last_ = exchange.Receive(collective_.peer, all.data, all.bytes);
        last_bytes_ = last_->bytes;
      }
      return Next::kTransfers;
    }
    if (last_ != nullptr && last_->bytes != last_bytes_) {
      return DeviceError(absl::StrCat("the ", Describe(), " on rank ", exchange.world_rank(),
                                      ", group ", exchange.group_name(),
                                      ", got a message of another size"));
    }
    return Next::kDone;
  }

 private:
  const Collective collective_;
  bool started_ = false;
  Transfer* last_ = nullptr;
  size_t last_bytes_ = 0;
};

}  // namespace

std::shared_ptr<Operation> MakeMessageOperation(Collective collective, const Place& place,
                                                Engine& engine, uint64_t record) {
  switch (collective.kind) {
    case CollectiveKind::kAllReduce:
    case CollectiveKind::kReduceScatter:
      return std::make_shared<ReduceOperation>(std::move(collective), place, engine, record);
    case CollectiveKind::kSend:
    case CollectiveKind::kReceive:
      return std::make_shared<PairOperation>(std::move(collective), engine, record);
    default: return std::make_shared<MoveOperation>(std::move(collective), place, engine, record);
  }
}

}  // namespace osler
