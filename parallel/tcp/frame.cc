#include "parallel/tcp/frame.h"

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace osler::tcp {
namespace {

constexpr std::string_view kMagic = "OSLR";

template <typename T>
void AppendLittle(T value, std::string& out) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    out.push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xff));
  }
}

uint64_t ReadLittle(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

}  // namespace

void AppendFrame(uint16_t type, std::string_view payload, std::string& out) {
  out.append(kMagic);
  AppendLittle(kFrameVersion, out);
  AppendLittle(type, out);
  AppendLittle(static_cast<uint32_t>(payload.size()), out);
  out.append(payload);
}

absl::StatusOr<std::optional<Frame>> FrameReader::Next() {
  const std::string_view bytes = std::string_view(buffer_).substr(begin_);
  const std::string_view magic = bytes.substr(0, kMagic.size());
  if (magic != kMagic.substr(0, magic.size())) {
    return DeviceError("it does not speak osler's protocol");
  }
  if (bytes.size() < kFrameHeader) return std::nullopt;
  const uint64_t version = ReadLittle(bytes.substr(4, 2)), length = ReadLittle(bytes.substr(8, 4));
  if (version != kFrameVersion) {
    return DeviceError(absl::StrCat("it speaks version ", version, " of osler's protocol, not ",
                                    kFrameVersion, ": run the same osler everywhere"));
  }
  if (length > limit_) {
    return DeviceError(absl::StrCat("it announces a message of ", length, " bytes, more than the ",
                                    limit_, " allowed"));
  }
  if (bytes.size() < kFrameHeader + length) return std::nullopt;
  Frame frame{static_cast<uint16_t>(ReadLittle(bytes.substr(6, 2))),
              std::string(bytes.substr(kFrameHeader, length))};
  begin_ += kFrameHeader + length;
  if (begin_ == buffer_.size() || begin_ > size_t{1} << 16) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  return frame;
}

FieldWriter& FieldWriter::Int(int64_t value) {
  AppendLittle(value, bytes_);
  return *this;
}

FieldWriter& FieldWriter::Text(std::string_view text) {
  AppendLittle(static_cast<uint32_t>(text.size()), bytes_);
  bytes_.append(text);
  return *this;
}

int64_t FieldReader::Int() {
  ok_ = ok_ && rest_.size() >= sizeof(int64_t);
  if (!ok_) return 0;
  const auto value = static_cast<int64_t>(ReadLittle(rest_.substr(0, sizeof(int64_t))));
  rest_.remove_prefix(sizeof(int64_t));
  return value;
}

std::string FieldReader::Text() {
  ok_ = ok_ && rest_.size() >= sizeof(uint32_t);
  if (!ok_) return "";
  const uint64_t length = ReadLittle(rest_.substr(0, sizeof(uint32_t)));
  ok_ = rest_.size() - sizeof(uint32_t) >= length;
  if (!ok_) return "";
  std::string text(rest_.substr(sizeof(uint32_t), length));
  rest_.remove_prefix(sizeof(uint32_t) + length);
  return text;
}

}  // namespace osler::tcp
