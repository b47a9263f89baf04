#include "checkpoint/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "base/torch_status.h"
#include "checkpoint/dtype.h"

namespace osler {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

using Json = nlohmann::json;

// Walks the events of the JSON parser and accepts exactly the grammar of the header: nothing is
// built that the grammar does not name, so nesting and memory stay bounded by the header's length.
class HeaderWalk final : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderWalk(SafetensorsHeader& header) : header_(header) {}
  const std::string& error() const { return error_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool binary(binary_t&) override { return Unexpected("binary data"); }
  bool number_integer(number_integer_t) override {
    return InArray() ? Fail("has a negative number") : Unexpected("a number");
  }
  bool number_float(number_float_t, const string_t&) override {
    return InArray() ? Fail("has a number that is not an integer of 63 bits")
                     : Unexpected("a number");
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (!InArray()) return Unexpected("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail("has a number that is not an integer of 63 bits");
    }
    const bool shape = where_ == Where::kShape;
    std::vector<int64_t>& list = shape ? info_.shape : offsets_;
    if (list.size() >= (shape ? kMostDimensions : 2)) {
      return Fail(shape ? "has more than 64 dimensions" : "needs two data_offsets");
    }
    list.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(string_t& value) override {
    if (where_ == Where::kMetadata) {
      if (header_.metadata.try_emplace(metadata_key_, value).second) return true;
      return Fail("has the key " + Printable(metadata_key_) + " twice");
    }
    if (where_ != Where::kTensor || field_ != kDtype) return Unexpected("a string");
    info_.dtype = value;
    return true;
  }

  bool start_object(std::size_t) override {
    if (where_ == Where::kStart) {
      where_ = Where::kRoot;
    } else if (where_ == Where::kRoot) {
      where_ = name_ == kMetadataKey ? Where::kMetadata : Where::kTensor;
      info_ = {};
      offsets_.clear();
      seen_ = field_ = 0;
    } else {
      return Unexpected("an object");
    }
    return true;
  }

  bool key(string_t& value) override {
    if (where_ == Where::kRoot) return EnterName(value);
    if (where_ == Where::kMetadata) {
      metadata_key_ = value;
      return true;
    }
    field_ = value == "dtype"          ? kDtype
             : value == "shape"        ? kShape
             : value == "data_offsets" ? kOffsets
                                       : 0;
    if (field_ == 0) return Fail("has the unknown key " + Printable(value));
    if ((seen_ & field_) != 0) return Fail("has the key " + Printable(value) + " twice");
    seen_ |= field_;
    return true;
  }

  bool end_object() override {
    if (where_ == Where::kRoot) {
      where_ = Where::kStart;
      return true;
    }
    if (where_ == Where::kTensor) {
      if (seen_ != (kDtype | kShape | kOffsets)) return Fail("needs dtype, shape and data_offsets");
      if (offsets_.size() != 2) return Fail("needs two data_offsets");
      std::tie(info_.begin, info_.end) = std::pair(offsets_[0], offsets_[1]);
      header_.tensors[name_] = std::move(info_);
    }
    where_ = Where::kRoot;
    return true;
  }

  bool start_array(std::size_t) override {
    if (where_ != Where::kTensor || (field_ != kShape && field_ != kOffsets))
      return Unexpected("a list");
    where_ = field_ == kShape ? Where::kShape : Where::kOffsets;
    return true;
  }
  bool end_array() override {
    where_ = Where::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    error_ = fmt::format("the header is not valid JSON at its byte {}", position);
    return false;
  }

 private:
  enum class Where { kStart, kRoot, kMetadata, kTensor, kShape, kOffsets };
  static constexpr int kDtype = 1, kShape = 2, kOffsets = 4;

  bool InArray() const { return where_ == Where::kShape || where_ == Where::kOffsets; }
  bool EnterName(const std::string& name) {
    name_ = name;
    if (name == kMetadataKey ? std::exchange(metadata_seen_, true)
                             : header_.tensors.contains(name)) {
      return Fail("appears twice");
    }
    return true;
  }
  bool Fail(const std::string& why) {
    error_ = (name_ == kMetadataKey ? name_ : "tensor " + Printable(name_)) + " " + why;
    return false;
  }
  bool Unexpected(const std::string& what) {
    if (where_ == Where::kStart) {
      error_ = "the header is not a JSON object";
      return false;
    }
    if (where_ == Where::kMetadata) return Fail("must map strings to strings");
    return Fail("has " + what + " where the format has none");
  }

  SafetensorsHeader& header_;
  Where where_ = Where::kStart;
  bool metadata_seen_ = false;
  std::string name_, metadata_key_, error_;
  TensorInfo info_;
  std::vector<int64_t> offsets_;
  int seen_ = 0, field_ = 0;
};

absl::Status Bad(const std::string& why) { return absl::DataLossError(why); }

absl::Status CheckTensor(const std::string& name, const TensorInfo& info, int64_t data_size) {
  const std::string tensor = "tensor " + Printable(name);
  if (!DtypeBits(info.dtype).has_value())
    return Bad(tensor + " has the unknown dtype " + Printable(info.dtype));
  const std::optional<int64_t> bytes = TensorBytes(info.dtype, info.shape);
  if (!bytes.has_value())
    return Bad(tensor + " has a shape whose size overflows or does not fill whole bytes");
  if (info.begin > info.end || info.end > data_size) {
    return Bad(
        fmt::format("{} has data_offsets [{}, {}] outside the {} bytes of data (a truncated file?)",
                    tensor, info.begin, info.end, data_size));
  }
  if (info.end - info.begin != *bytes) {
    return Bad(fmt::format("{} has {} bytes of data where its shape and dtype need {}", tensor,
                           info.end - info.begin, *bytes));
  }
  return absl::OkStatus();
}

// Every byte of the data belongs to exactly one tensor.
absl::Status CheckCover(const SafetensorsHeader& header, int64_t data_size) {
  std::vector<std::tuple<int64_t, int64_t, const std::string*>> ranges;
  ranges.reserve(header.tensors.size());
  for (const auto& [name, info] : header.tensors) {
    OSLER_RETURN_IF_ERROR(CheckTensor(name, info, data_size));
    ranges.emplace_back(info.begin, info.end, &name);
  }
  std::sort(ranges.begin(), ranges.end());
  int64_t covered = 0;
  for (const auto& [begin, end, name] : ranges) {
    if (begin != covered) {
      return Bad(fmt::format(
          "tensor {} {}: its data begins at {}, the data before it ends at {}", Printable(*name),
          begin < covered ? "overlaps another one" : "follows a hole", begin, covered));
    }
    covered = end;
  }
  if (covered != data_size) {
    return Bad(
        fmt::format("the file has {} bytes of data, its tensors take {}", data_size, covered));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view file) {
  const auto size = static_cast<int64_t>(file.size());
  if (size < kLengthBytes)
    return Bad(fmt::format("the file has {} bytes: no safetensors header", size));
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  if (length > static_cast<uint64_t>(kLargestHeader)) {
    return Bad(
        fmt::format("the header claims {} bytes, over the cap of {}", length, kLargestHeader));
  }
  if (static_cast<int64_t>(length) > size - kLengthBytes) {
    return Bad(fmt::format("the header claims {} bytes, the file has {} (a truncated file?)",
                           length, size - kLengthBytes));
  }
  const std::string_view text = file.substr(kLengthBytes, length);
  if (text.empty() || text.front() != '{') return Bad("the header does not begin with '{'");
  SafetensorsHeader header;
  header.data_begin = kLengthBytes + static_cast<int64_t>(length);
  OSLER_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    HeaderWalk walk(header);
    if (!Json::sax_parse(text.begin(), text.end(), &walk)) return Bad(walk.error());
    return CheckCover(header, size - header.data_begin);
  }));
  return header;
}

}  // namespace osler
