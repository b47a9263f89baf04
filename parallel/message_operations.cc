#include "parallel/message_operations.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "parallel/reduce.h"

namespace osler {
namespace {

// Payloads for one peer of up to this many bytes ride in the opening note.
constexpr int64_t kInlineBytes = 4096;
// Sums move in pieces of this many bytes of the tensor, so that scratch memory stays small.
constexpr int64_t kPieceBytes = int64_t{2} << 20;

// What a rank says it calls; the bytes of the opening message, followed by the payload if small.
struct Note {
  CollectiveKind kind;
  at::ScalarType dtype;  // of the first tensor
  ReduceOp op;
  int32_t peer;
  int64_t count;     // elements; all-to-all: for the reader of the note
  int64_t expected;  // all-to-all: elements that the reader is to send
  uint64_t digest;   // of all tensors' dtypes and sizes
  int64_t sequence;

  bool Matches(const Note& other) const {
    return std::tie(kind, dtype, op, peer, count, digest, sequence) ==
           std::tie(other.kind, other.dtype, other.op, other.peer, other.count, other.digest,
                    other.sequence);
  }
};

std::string Describe(const Note& note) {
  std::string text(NameOf(note.kind));
  if (note.kind == CollectiveKind::kBarrier) return text;
  absl::StrAppend(&text, " of ", note.count, " ", c10::toString(note.dtype));
  switch (note.kind) {
    case CollectiveKind::kAllReduce:
      return absl::StrCat(text, note.op == ReduceOp::kSum ? " (sum)" : " (max)");
    case CollectiveKind::kBroadcast: return absl::StrCat(text, " (root ", note.peer, ")");
    case CollectiveKind::kSend: return absl::StrCat(text, " (to ", note.peer, ")");
    case CollectiveKind::kReceive: return absl::StrCat(text, " (from ", note.peer, ")");
    default: return text;
  }
}

Note NoteOf(const Collective& collective, int64_t sequence) {
  Note note{.kind = collective.kind,
            .dtype = at::kFloat,
            .op = collective.op,
            .peer = collective.peer,
            .count = 0,
            .expected = 0,
            .digest = 14695981039346656037u,  // FNV-1a
            .sequence = sequence};
  if (!collective.tensors.empty()) note.dtype = collective.tensors[0].scalar_type();
  for (const at::Tensor& x : collective.tensors) {
    note.count += x.numel();
    for (const auto part :
         {static_cast<uint64_t>(x.scalar_type()), static_cast<uint64_t>(x.numel())})
      note.digest = (note.digest ^ part) * 1099511628211u;
  }
  return note;
}

struct Segment {
  char* data;
  int64_t bytes;
};
using Segments = std::vector<Segment>;

Segment SegmentOf(const at::Tensor& x, int64_t begin, int64_t count) {
  const auto element = static_cast<int64_t>(x.element_size());
  return {static_cast<char*>(x.mutable_data_ptr()) + begin * element, count * element};
}

int64_t BytesOf(const Segments& segments) {
  int64_t bytes = 0;
  for (const Segment& segment : segments) bytes += segment.bytes;
  return bytes;
}

bool FitsNote(const Segments& segments) { return BytesOf(segments) <= kInlineBytes; }

// A collective of the whole group: notes first.
class MeetingOperation : public Operation {
 public:
  MeetingOperation(Collective collective, const Place& place, Engine& engine, uint64_t record)
      : Operation(engine, record),
        place_(place),
        collective_(std::move(collective)),
        note_(NoteOf(collective_, place.sequence)) {}

  bool point_to_point() const override { return false; }
  std::string Describe() const override {
    return absl::StrCat(osler::Describe(note_), collective_.what.empty() ? "" : ", ",
                        collective_.what);
  }
  absl::StatusOr<Next> Advance(Exchange& exchange) override {
    switch (stage_++) {
      case 0: PostNotes(exchange); return Next::kTransfers;
      case 1: OSLER_RETURN_IF_ERROR(CheckNotes(exchange)); return Begin(exchange);
      default: return Continue(exchange);
    }
  }

 protected:
  // What goes to `peer` in the note; all of it, or nothing when that is too much for a note.
  virtual Segments Payload(int peer) const = 0;
  // All have come and agree.
  virtual Next Begin(Exchange& exchange) = 0;
  virtual Next Continue(Exchange& exchange) = 0;

  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  bool alone(int peer) const { return peer == place_.rank; }
  const std::vector<at::Tensor>& tensors() const { return collective_.tensors; }
  const Collective& collective() const { return collective_; }
  char* payload_from(int peer) const { return room_.get() + peer * kRoom + sizeof(Note); }

 private:
  static constexpr int64_t kRoom = sizeof(Note) + kInlineBytes;

  Note NoteFor(int peer) const {
    Note note = note_;
    if (note.kind != CollectiveKind::kAllToAll) return note;
    note.count = collective_.tensors[static_cast<size_t>(peer)].numel();
    note.expected = collective_.receive[static_cast<size_t>(peer)].numel();
    note.digest = static_cast<uint64_t>(note.dtype);
    return note;
  }
  Note NoteFrom(int peer) const {
    Note note;
    std::memcpy(&note, room_.get() + peer * kRoom, sizeof(Note));
    return note;
  }

  void PostNotes(Exchange& exchange) {
    room_.reset(new char[static_cast<size_t>(size() * kRoom)]);
    for (int r = 0; r < size(); ++r) {
      if (!alone(r)) exchange.Receive(r, room_.get() + r * kRoom, kRoom);
    }
    sent_.resize(static_cast<size_t>(size()));
    for (int step = 1; step < size(); ++step) {
      const int r = (rank() + step) % size();  // not all to the same one first
      PostNote(r, exchange);
    }
  }

  void PostNote(int r, Exchange& exchange) {
    const Segments payload = Payload(r);
    std::vector<char>& message = sent_[static_cast<size_t>(r)];
    message.resize(sizeof(Note) + static_cast<size_t>(BytesOf(payload)));
    const Note note = NoteFor(r);
    std::memcpy(message.data(), &note, sizeof(Note));
    char* at = message.data() + sizeof(Note);
    for (const Segment& segment : payload) {
      if (segment.bytes > 0) std::memcpy(at, segment.data, static_cast<size_t>(segment.bytes));
      at += segment.bytes;
    }
    exchange.SendNote(r, message.data(), static_cast<int64_t>(message.size()), BytesOf(payload));
  }

  absl::Status CheckNotes(const Exchange& exchange) const {
    for (int r = 0; r < size(); ++r) {
      if (alone(r)) continue;
      const Note mine = NoteFor(r);
      const Note theirs = NoteFrom(r);
      const bool pairs =
          mine.kind == CollectiveKind::kAllToAll && theirs.kind == CollectiveKind::kAllToAll;
      if (pairs) {
        if (mine.sequence == theirs.sequence && mine.dtype == theirs.dtype &&
            mine.count == theirs.expected && mine.expected == theirs.count)
          continue;
        return DeviceError(absl::StrCat(
            "ranks disagree on an all-to-all of group ", exchange.group_name(), ": rank ",
            exchange.world_rank(), " sends ", mine.count, " and expects ", mine.expected, " ",
            c10::toString(mine.dtype), ", rank ", exchange.world_rank(r), " expects ",
            theirs.expected, " and sends ", theirs.count, " ", c10::toString(theirs.dtype)));
      }
      if (!mine.Matches(theirs)) return Disagreement(exchange);
    }
    return absl::OkStatus();
  }

  // The same words on every rank: rank 0's call, and the first one that differs from it.
  absl::Status Disagreement(const Exchange& exchange) const {
    const auto note_of = [&](int r) { return alone(r) ? note_ : NoteFrom(r); };
    const auto words = [&](int r) {
      return absl::StrCat("rank ", exchange.world_rank(r), " ", osler::Describe(note_of(r)));
    };
    const Note first = note_of(0);
    int odd = 1;
    while (odd + 1 < size() && first.Matches(note_of(odd))) ++odd;
    std::string text = absl::StrCat("ranks called different collectives in group ",
                                    exchange.group_name(), ": ", words(0), ", ", words(odd));
    if (first.sequence != note_of(odd).sequence) {
      absl::StrAppend(&text, " (calls number ", first.sequence, " and ", note_of(odd).sequence,
                      " of the group)");
    }
    return DeviceError(text);
  }

  const Place place_;
  const Collective collective_;
  const Note note_;
  int stage_ = 0;
  std::unique_ptr<char[]> room_;         // one note from each
  std::vector<std::vector<char>> sent_;  // one note to each
};

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
    for (int r = 0; r < size(); ++r) {
      if (alone(r)) continue;
      const Segments incoming = Incoming(r);
      if (FitsNote(incoming)) {
        Unpack(incoming, payload_from(r));
      } else {
        for (const Segment& s : incoming) exchange.Receive(r, s.data, s.bytes);
      }
    }
    for (int step = 1; step < size(); ++step) {
      const int r = (rank() + step) % size();
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

// All-reduce and reduce-scatter. Elements slices[r] from `base` are summed by rank r.
class ReduceOperation : public MeetingOperation {
 public:
  ReduceOperation(Collective reduced, const Place& place, Engine& engine, uint64_t record)
      : MeetingOperation(std::move(reduced), place, engine, record) {
    if (collective().kind == CollectiveKind::kReduceScatter) {
      for (const at::Tensor& x : tensors()) CutScatter(x);
    } else {
      CutAllReduce(tensors()[0]);
    }
    for (const Phase& phase : phases_) scratch_bytes_ = std::max(scratch_bytes_, OwnBytes(phase));
    scratch_bytes_ *= size() - 1;
    small_ = !shared_ && phases_.size() == 1 && OwnBytes(phases_[0]) <= kInlineBytes;
  }

 protected:
  Segments Payload(int peer) const override {
    Segments segments;
    if (!small_) return segments;
    for (const Chunk& chunk : phases_[0]) segments.push_back(chunk.segment(peer));
    return segments;
  }

  Next Begin(Exchange& exchange) override {
    if (small_) {
      std::vector<const char*> sources;
      for (int r = 0; r < size(); ++r) sources.push_back(payload_from(r));
      Reduce(phases_[0], std::move(sources));
      return Next::kDone;
    }
    scratch_.reset(new char[static_cast<size_t>(scratch_bytes_)]);
    Collect(phases_[0], exchange);
    return Next::kTransfers;
  }

  Next Continue(Exchange& exchange) override {
    if (phase_ == phases_.size()) return Next::kDone;
    const Phase& phase = phases_[phase_++];
    std::vector<const char*> sources;
    const char* at = scratch_.get();
    for (int r = 0; r < size(); ++r) {
      sources.push_back(at);
      if (!alone(r)) at += OwnBytes(phase);
    }
    Reduce(phase, std::move(sources));
    if (shared_) Share(phase, exchange);
    if (phase_ < phases_.size()) Collect(phases_[phase_], exchange);
    return Next::kTransfers;
  }

 private:
  struct Chunk {
    at::ScalarType dtype;
    int64_t element;
    char* base;
    std::vector<Slice> slices;

    Segment segment(int of) const {
      const Slice& slice = slices[static_cast<size_t>(of)];
      return {base + slice.begin * element, slice.count() * element};
    }
  };
  using Phase = std::vector<Chunk>;

  Chunk ChunkOf(const at::Tensor& x) const {
    return {x.scalar_type(),
            static_cast<int64_t>(x.element_size()),
            static_cast<char*>(x.mutable_data_ptr()),
            {}};
  }

  void CutAllReduce(const at::Tensor& x) {
    Chunk chunk = ChunkOf(x);
    if (x.numel() * chunk.element <= kInlineBytes) {  // everyone sums all of it
      chunk.slices.assign(static_cast<size_t>(size()), {0, x.numel()});
      phases_.push_back({chunk});
      return;
    }
    shared_ = true;
    const int64_t piece = kPieceBytes / chunk.element;
    for (int64_t begin = 0; begin < x.numel(); begin += piece) {
      chunk.slices.clear();
      for (int r = 0; r < size(); ++r) {
        const Slice slice = SliceOf(std::min(piece, x.numel() - begin), r, size());
        chunk.slices.push_back({begin + slice.begin, begin + slice.end});
      }
      phases_.push_back({chunk});
    }
  }

  void CutScatter(const at::Tensor& x) {
    Chunk chunk = ChunkOf(x);
    const int64_t part = x.numel() / size();
    const int64_t piece = std::max<int64_t>(1, kPieceBytes / chunk.element / size());
    for (int64_t begin = 0; begin < part; begin += piece) {
      const int64_t end = std::min(part, begin + piece);
      chunk.slices.clear();
      for (int r = 0; r < size(); ++r) chunk.slices.push_back({r * part + begin, r * part + end});
      const int64_t bytes = (end - begin) * chunk.element;
      if (phases_.empty() || (OwnBytes(phases_.back()) + bytes) * size() > kPieceBytes)
        phases_.emplace_back();
      phases_.back().push_back(chunk);
    }
  }

  int64_t OwnBytes(const Phase& phase) const {
    int64_t bytes = 0;
    for (const Chunk& chunk : phase) bytes += chunk.segment(rank()).bytes;
    return bytes;
  }

  // Everyone's version of this rank's slices comes into scratch, peer by peer.
  void Collect(const Phase& phase, Exchange& exchange) {
    char* at = scratch_.get();
    for (int r = 0; r < size(); ++r) {
      if (alone(r)) continue;
      for (const Chunk& chunk : phase) {
        const int64_t bytes = chunk.segment(rank()).bytes;
        exchange.Receive(r, at, bytes);
        at += bytes;
      }
    }
    for (int step = 1; step < size(); ++step) {
      const int r = (rank() + step) % size();
      for (const Chunk& chunk : phase) {
        const Segment segment = chunk.segment(r);
        exchange.Send(r, segment.data, segment.bytes);
      }
    }
  }

  // sources[r]: rank r's version of this rank's slices, one after another; this rank's own are
  // taken from where they lie.
  void Reduce(const Phase& phase, std::vector<const char*> sources) const {
    std::vector<const void*> inputs(sources.size());
    for (const Chunk& chunk : phase) {
      const Segment own = chunk.segment(rank());
      for (size_t r = 0; r < sources.size(); ++r) {
        inputs[r] = alone(static_cast<int>(r)) ? own.data : sources[r];
        sources[r] += own.bytes;
      }
      void* out = own.data;
      ReduceInOrder(chunk.dtype, collective().op, inputs, own.bytes / chunk.element,
                    absl::MakeConstSpan(&out, 1));
    }
  }

  void Share(const Phase& phase, Exchange& exchange) {
    for (const Chunk& chunk : phase) {
      for (int r = 0; r < size(); ++r) {
        if (alone(r)) continue;
        const Segment theirs = chunk.segment(r);
        exchange.Receive(r, theirs.data, theirs.bytes);
      }
      const Segment own = chunk.segment(rank());
      for (int step = 1; step < size(); ++step)
        exchange.Send((rank() + step) % size(), own.data, own.bytes);
    }
  }

  std::vector<Phase> phases_;
  bool shared_ = false;  // sums go to all
  bool small_ = false;   // notes carry everything
  size_t phase_ = 0;     // whose slices are on their way
  int64_t scratch_bytes_ = 0;
  std::unique_ptr<char[]> scratch_;
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
