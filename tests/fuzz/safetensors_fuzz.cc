// safetensors files from arbitrary bytes: refused with a message that names the file, or accepted,
// and then every byte of the data belongs to exactly one tensor and every tensor that has a type
// here can be read.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "checkpoint/dtype.h"
#include "checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace osler {
namespace {

class Borrowed final : public MappedFile {
 public:
  explicit Borrowed(std::string_view data) : data_(data) {}
  std::string_view data() const override { return data_; }

 private:
  std::string_view data_;
};

void CheckTensor(const SafetensorsFile& file, const std::string& name, const TensorInfo& info) {
  const auto bytes = file.Bytes(name);
  OSLER_CHECK(bytes.ok());
  OSLER_CHECK(static_cast<int64_t>(bytes->size()) == TensorBytes(info.dtype, info.shape));
  const auto tensor = file.Tensor(name);
  if (!tensor.ok()) {
    OSLER_CHECK(tensor.status().message().find("fuzz.safetensors: tensor ") == 0);
    return;
  }
  OSLER_CHECK(tensor->nbytes() == bytes->size());
  const bool same =
      bytes->empty() || std::memcmp(tensor->const_data_ptr(), bytes->data(), bytes->size()) == 0;
  OSLER_CHECK(same);
}

void Check(std::string_view input) {
  const auto file = SafetensorsFile::Parse("fuzz.safetensors", std::make_shared<Borrowed>(input));
  if (!file.ok()) {
    OSLER_CHECK(file.status().message().find("fuzz.safetensors: ") == 0);
    return;
  }
  int64_t covered = 0;
  for (const std::string& name : NamesInFileOrder(**file)) {
    const TensorInfo& info = (*file)->tensors().at(name);
    OSLER_CHECK(info.begin == covered);
    covered = info.end;
    CheckTensor(**file, name, info);
  }
  OSLER_CHECK(covered <= static_cast<int64_t>(input.size()));
}

std::string WithLength(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes.append(header).append(data);
}

std::string Seed(std::string_view header, size_t data) {
  return WithLength(header, std::string(data, '\1'));
}

// The input with a length that fits its header, which ends at its last brace: most mutations shift
// that end, and would otherwise never get past the length.
std::string Mended(std::string_view input) {
  const std::string_view rest = input.substr(std::min<size_t>(8, input.size()));
  const size_t end = rest.rfind('}') + 1;  // 0 without a brace
  return WithLength(rest.substr(0, end), rest.substr(end));
}

}  // namespace
}  // namespace osler

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  osler::Check(input);
  osler::Check(osler::Mended(input));
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  using osler::Seed;
  return {
      Seed("{}      ", 0),
      Seed(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}      )", 24),
      Seed(
          R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]},)"
          R"("s":{"dtype":"I64","shape":[],"data_offsets":[3,11]},"e":{"dtype":"U8","shape":[0,2],"data_offsets":[11,11]}})",
          11),
      Seed(
          R"({"x":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"F4","shape":[4],)"
          R"("data_offsets":[4,6]},"é\u00e9":{"dtype":"BF16","shape":[1,1,1],"data_offsets":[6,8]}})",
          8),
  };
}
