// Bytes from a network: frames, their fields, and the control plane's messages. However they are
// cut into pieces, the frames are the same, and what is read can be written back.
#include <algorithm>

#include "base/check.h"
#include "parallel/control_message.h"
#include "parallel/tcp/frame.h"
#include "tests/fuzz/fuzz.h"

namespace osler {
namespace {

constexpr size_t kLongest = 4096;

struct Frames {
  std::vector<tcp::Frame> whole;
  bool failed = false;
};

Frames ReadAll(std::string_view bytes, size_t step) {
  tcp::FrameReader reader(kLongest);
  Frames frames;
  while (!frames.failed) {
    auto frame = reader.Next();
    frames.failed = !frame.ok();
    if (frame.ok() && frame->has_value()) {
      OSLER_CHECK((*frame)->payload.size() <= kLongest);
      frames.whole.push_back(**std::move(frame));
    } else if (bytes.empty()) {
      break;
    } else if (frame.ok()) {
      const size_t n = std::min(step, bytes.size());
      reader.Append(bytes.substr(0, n));
      bytes.remove_prefix(n);
    }
  }
  return frames;
}

void ReadFields(std::string_view payload) {
  tcp::FieldReader fields(payload);
  for (int i = 0; i < 100 && fields.ok(); ++i) {
    if (i % 2 == 0) {
      fields.Int();
    } else {
      OSLER_CHECK(fields.Text().size() <= payload.size());
    }
  }
  Words words;
  if (Decode(payload, words) && words.message.size() <= kLongestWords) {
    Words again;
    OSLER_CHECK(Decode(Encode(words), again) && again.message == words.message);
  }
  Blame blame;
  if (Decode(payload, blame)) {
    OSLER_CHECK(Encode(blame).size() == payload.size());
  }
}

}  // namespace
}  // namespace osler

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const osler::Frames at_once = osler::ReadAll(bytes, size + 1);
  const osler::Frames in_pieces = osler::ReadAll(bytes, 1 + size % 7);
  OSLER_CHECK(at_once.failed == in_pieces.failed);
  OSLER_CHECK(at_once.whole.size() == in_pieces.whole.size());
  std::string written;
  for (size_t i = 0; i < at_once.whole.size(); ++i) {
    const osler::tcp::Frame& frame = at_once.whole[i];
    OSLER_CHECK(frame.payload == in_pieces.whole[i].payload);
    osler::tcp::AppendFrame(frame.type, frame.payload, written);
    osler::ReadFields(frame.payload);
  }
  OSLER_CHECK(bytes.substr(0, written.size()) == written);
  osler::ReadFields(bytes);
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  std::string stream;
  osler::tcp::AppendFrame(1, std::string(32, 'n'), stream);
  osler::tcp::AppendFrame(16, "", stream);
  osler::tcp::AppendFrame(
      2, osler::tcp::FieldWriter().Int(1).Int(2).Int(3).Text("nonce").Text("mac").bytes(), stream);
  osler::tcp::AppendFrame(20, osler::Encode(osler::Words{4, "the device is gone"}), stream);
  osler::tcp::AppendFrame(22, osler::Encode(osler::Blame{2, "died"}), stream);
  return {stream, stream.substr(0, 44), osler::Encode(osler::Blame{1, "was silent"})};
}
