#include "parallel/message_meeting.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {

MeetingOperation::MeetingOperation(Collective collective, const Place& place, Engine& engine,
                                   uint64_t record)
    : Operation(engine, record),
      place_(place),
      collective_(std::move(collective)),
      note_(NoteOf(collective_, place.sequence)) {
  for (int step = 1; step < place_.size; ++step)
    peers_.push_back((place_.rank + step) % place_.size);
}

std::string MeetingOperation::Describe() const {
  return absl::StrCat(osler::Describe(note_), collective_.what.empty() ? "" : ", ",
                      collective_.what);
}

absl::StatusOr<Operation::Next> MeetingOperation::Advance(Exchange& exchange) {
  switch (stage_++) {
    case 0:
      room_.reset(new char[static_cast<size_t>(size() * kNoteRoom)]);  // left as it is
      for (const int r : peers_) exchange.Receive(r, room_.get() + r * kNoteRoom, kNoteRoom);
      sent_.resize(static_cast<size_t>(size()));
      for (const int r : peers_) PostNote(r, exchange);
      return Next::kTransfers;
    case 1: OSLER_RETURN_IF_ERROR(CheckNotes(exchange)); return Begin(exchange);
    default: return Continue(exchange);
  }
}

const char* MeetingOperation::message_from(int peer) const {
  return room_.get() + peer * kNoteRoom;
}

Note MeetingOperation::NoteFor(int peer) const {
  Note note = note_;
  if (note.kind != CollectiveKind::kAllToAll) return note;
  note.count = collective_.tensors[static_cast<size_t>(peer)].numel();
  note.expected = collective_.receive[static_cast<size_t>(peer)].numel();
  return note;
}

Note MeetingOperation::NoteFrom(int peer) const { return UnpackNote(message_from(peer)); }

void MeetingOperation::PostNote(int peer, Exchange& exchange) {
  const Segments payload = Payload(peer);
  std::vector<char>& message = sent_[static_cast<size_t>(peer)];
  message = PackNote(NoteFor(peer), payload);
  exchange.SendNote(peer, message.data(), static_cast<int64_t>(message.size()), BytesOf(payload));
}

absl::Status MeetingOperation::CheckNotes(const Exchange& exchange) const {
  for (const int r : peers_) {
    if (note_.kind == CollectiveKind::kAllToAll && NoteFrom(r).kind == CollectiveKind::kAllToAll) {
      OSLER_RETURN_IF_ERROR(CheckPair(r, exchange));
    } else if (!note_.Matches(NoteFrom(r))) {
      return Disagreement(exchange);
    }
  }
  return absl::OkStatus();
}

// An all-to-all's sizes are a matter of each two ranks.
absl::Status MeetingOperation::CheckPair(int peer, const Exchange& exchange) const {
  const Note mine = NoteFor(peer), theirs = NoteFrom(peer);
  if (mine.sequence == theirs.sequence && mine.dtype == theirs.dtype &&
      mine.count == theirs.expected && mine.expected == theirs.count)
    return absl::OkStatus();
  const auto words = [&](int rank, const Note& note) {
    return absl::StrCat("rank ", rank, " sends ", note.count, " and expects ", note.expected, " ",
                        c10::toString(note.dtype), " in call number ", note.sequence);
  };
  return DeviceError(absl::StrCat("ranks disagree on an all-to-all of group ",
                                  exchange.group_name(), ": ", words(exchange.world_rank(), mine),
                                  ", ", words(exchange.world_rank(peer), theirs)));
}

// The same words on every rank: rank 0's call, and the first one that differs from it.
absl::Status MeetingOperation::Disagreement(const Exchange& exchange) const {
  const auto note_of = [&](int r) { return own(r) ? note_ : NoteFrom(r); };
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

}  // namespace osler
