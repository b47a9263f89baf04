#include "parallel/message_note.h"

#include <cstring>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace osler {

bool Note::Matches(const Note& other) const {
  return std::tie(kind, dtype, op, peer, count, digest, sequence) ==
         std::tie(other.kind, other.dtype, other.op, other.peer, other.count, other.digest,
                  other.sequence);
}

std::string Describe(const Note& note) {
  std::string text(NameOf(note.kind));
  if (note.kind == CollectiveKind::kBarrier) return text;
  absl::StrAppend(&text, " of ", note.count, " ", c10::toString(note.dtype));
  switch (note.kind) {
    case CollectiveKind::kAllReduce:
      return absl::StrCat(text, note.op == ReduceOp::kSum ? " (sum)" : " (max)");
    case CollectiveKind::kBroadcast: return absl::StrCat(text, " (root ", note.peer, ")");
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

std::vector<char> PackNote(const Note& note, const Segments& payload) {
  std::vector<char> message(sizeof(Note) + static_cast<size_t>(BytesOf(payload)));
  std::memcpy(message.data(), &note, sizeof(Note));
  char* at = message.data() + sizeof(Note);
  for (const Segment& segment : payload) {
    if (segment.bytes > 0) std::memcpy(at, segment.data, static_cast<size_t>(segment.bytes));
    at += segment.bytes;
  }
  return message;
}

Note UnpackNote(const char* message) {
  Note note;
  std::memcpy(&note, message, sizeof(Note));
  return note;
}

void UnpackPayload(const char* message, const Segments& payload) {
  const char* at = message + sizeof(Note);
  for (const Segment& segment : payload) {
    if (segment.bytes > 0) std::memcpy(segment.data, at, static_cast<size_t>(segment.bytes));
    at += segment.bytes;
  }
}

}  // namespace osler
