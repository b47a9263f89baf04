// What opens a collective or a transfer: a note that says what its sender calls, followed by the
// payload when that is small. The receiver makes room for any note, so that nothing longer than its
// memory is ever on the way when ranks disagree (an MPI may write past the end).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace osler {

// Payloads for one peer of up to this many bytes ride in the note.
inline constexpr int64_t kInlineBytes = 4096;

struct Note {
  CollectiveKind kind;
  at::ScalarType dtype;  // of the first tensor
  ReduceOp op;
  int32_t peer;
  int64_t count;     // elements; all-to-all: for the reader of the note
  int64_t expected;  // all-to-all: elements that the reader is to send
  uint64_t digest;   // of all tensors' dtypes and sizes
  int64_t sequence;  // which of the group's collectives it is

  bool Matches(const Note& other) const;
};

Note NoteOf(const Collective& collective, int64_t sequence);
std::string Describe(const Note& note);  // "all-reduce of 4 Float (sum)"

// Memory of a tensor that moves as a whole.
struct Segment {
  char* data;
  int64_t bytes;
};
using Segments = std::vector<Segment>;

// Elements [begin, begin + count) of a contiguous tensor.
Segment SegmentOf(const at::Tensor& x, int64_t begin, int64_t count);
int64_t BytesOf(const Segments& segments);
bool FitsNote(const Segments& segments);

inline constexpr int64_t kNoteRoom = sizeof(Note) + kInlineBytes;
// The note as its bytes, and the payload behind it.
std::vector<char> PackNote(const Note& note, const Segments& payload);
Note UnpackNote(const char* message);
// What lies behind the note goes to its places.
void UnpackPayload(const char* message, const Segments& payload);

}  // namespace osler
