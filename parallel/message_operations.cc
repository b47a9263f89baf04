#include "parallel/message_operations.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

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
        UnpackPayload(message_from(r), incoming);
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

  void CopyOwnPart() const {
    const auto self = static_cast<size_t>(rank());
    const Segment from = SegmentOf(tensors()[self], 0, tensors()[self].numel());
    if (from.bytes > 0) {
      std::memcpy(collective().receive[self].mutable_data_ptr(), from.data,
                  static_cast<size_t>(from.bytes));
    }
  }
};

// From one rank to another: a note, and the payload behind it or in a message of its own.
class PairOperation : public Operation {
 public:
  PairOperation(Collective collective, Engine& engine, uint64_t record)
      : Operation(engine, record),
        collective_(std::move(collective)),
        note_(NoteOf(collective_, 0)),
        whole_({SegmentOf(collective_.tensors[0], 0, collective_.tensors[0].numel())}) {}

  int lane() const override { return LaneOf(collective_.kind, collective_.peer); }
  std::string Describe() const override {
    return absl::StrCat(osler::Describe(note_), collective_.what.empty() ? "" : ", ",
                        collective_.what);
  }
  absl::StatusOr<Next> Advance(Exchange& exchange) override {
    const bool sends = collective_.kind == CollectiveKind::kSend;
    switch (stage_++) {
      case 0: sends ? SendAll(exchange) : ReceiveNote(exchange); return Next::kTransfers;
      case 1: return sends ? Next::kDone : ReceivePayload(exchange);
      default: return Next::kDone;
    }
  }

 private:
  // Lanes of a group but that of its collectives: two for each peer.
  static int LaneOf(CollectiveKind kind, int peer) {
    return kCollectives + 1 + 2 * peer + (kind == CollectiveKind::kSend ? 1 : 0);
  }

  void SendAll(Exchange& exchange) {
    const Segments payload = FitsNote(whole_) ? whole_ : Segments{};
    message_ = PackNote(note_, payload);
    exchange.SendNote(collective_.peer, message_.data(), static_cast<int64_t>(message_.size()),
                      BytesOf(payload));
    if (payload.empty()) exchange.Send(collective_.peer, whole_[0].data, whole_[0].bytes);
  }

  void ReceiveNote(Exchange& exchange) {
    message_.resize(kNoteRoom);
    exchange.Receive(collective_.peer, message_.data(), kNoteRoom);
  }

  absl::StatusOr<Next> ReceivePayload(Exchange& exchange) {
    const Note theirs = UnpackNote(message_.data());
    if (theirs.dtype != note_.dtype || theirs.count != note_.count) {
      return DeviceError(absl::StrCat(
          "rank ", exchange.world_rank(), "'s ", Describe(), " in group ", exchange.group_name(),
          " met rank ", exchange.world_rank(collective_.peer), "'s ", osler::Describe(theirs)));
    }
    if (FitsNote(whole_)) {
      UnpackPayload(message_.data(), whole_);
      return Next::kDone;
    }
    exchange.Receive(collective_.peer, whole_[0].data, whole_[0].bytes);
    return Next::kTransfers;
  }

  const Collective collective_;
  const Note note_;
  const Segments whole_;
  std::vector<char> message_;
  int stage_ = 0;
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
