// Framed messages on a byte stream: a header of 12 bytes (magic "OSLR", version, type, length, all
// little-endian), then the payload; and the fields of a payload.
//
// What arrives comes from a network: the reader returns an error for a wrong magic, another
// version or a length over its limit before it stores a byte of the payload. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace osler::tcp {

inline constexpr size_t kFrameHeader = 12;
inline constexpr uint16_t kFrameVersion = 1;

struct Frame {
  uint16_t type = 0;
  std::string payload;
};

// Appends the frame's bytes to `out`.
void AppendFrame(uint16_t type, std::string_view payload, std::string& out);

class FrameReader {
 public:
  explicit FrameReader(size_t longest_payload) : limit_(longest_payload) {}

  void set_limit(size_t longest_payload) { limit_ = longest_payload; }

  // Adds bytes as they came, in pieces of any size.
  void Append(std::string_view bytes) { buffer_.append(bytes); }

  // The next whole frame; nothing if its end is still to come. After an error the stream is lost
  // and every call returns it.
  absl::StatusOr<std::optional<Frame>> Next();

 private:
  size_t limit_;
  size_t begin_ = 0;  // of what has not been read
  std::string buffer_;
};

// Fields of a payload in writing order: integers little-endian, strings with their length before
// them.
class FieldWriter {
 public:
  FieldWriter& Int(int64_t value);
  FieldWriter& Text(std::string_view text);
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Reads them back. A field that is not there reads as 0 or "", and ok() is false from then on.
class FieldReader {
 public:
  explicit FieldReader(std::string_view bytes) : rest_(bytes) {}
  int64_t Int();
  std::string Text();
  bool ok() const { return ok_; }
  bool AtEnd() const { return ok_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace osler::tcp
