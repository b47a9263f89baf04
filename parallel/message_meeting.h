// A collective of a whole group, as far as it is the same for all: everyone's note goes to
// everyone, and nothing else happens until all have come and agree.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/message_note.h"
#include "parallel/operation.h"

namespace osler {

// Which rank of a group a collective is made for, and where it stands in the group's order.
struct Place {
  int rank = 0, size = 1;
  int64_t sequence = 0;
};

class MeetingOperation : public Operation {
 public:
  MeetingOperation(Collective collective, const Place& place, Engine& engine, uint64_t record);

  int lane() const override { return kCollectives; }
  std::string Describe() const override;
  absl::StatusOr<Next> Advance(Exchange& exchange) override;

 protected:
  // What goes to `peer` in the note; all of it, or nothing when that is too much for a note.
  virtual Segments Payload(int peer) const = 0;
  // All have come and agree.
  virtual Next Begin(Exchange& exchange) = 0;
  // A phase's transfers are done.
  virtual Next Continue(Exchange& exchange) = 0;

  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  bool own(int peer) const { return peer == place_.rank; }
  // The others, each rank's list beginning elsewhere so that not all send to the same one first.
  const std::vector<int>& peers() const { return peers_; }
  const Collective& collective() const { return collective_; }
  const std::vector<at::Tensor>& tensors() const { return collective_.tensors; }
  // The peer's note, payload and all.
  const char* message_from(int peer) const;

 private:
  Note NoteFor(int peer) const;
  Note NoteFrom(int peer) const;
  void PostNote(int peer, Exchange& exchange);
  absl::Status CheckNotes(const Exchange& exchange) const;
  absl::Status CheckPair(int peer, const Exchange& exchange) const;
  absl::Status Disagreement(const Exchange& exchange) const;

  const Place place_;
  std::vector<int> peers_;
  const Collective collective_;
  const Note note_;
  int stage_ = 0;
  std::unique_ptr<char[]> room_;         // for a note from each
  std::vector<std::vector<char>> sent_;  // the note to each
};

}  // namespace osler
