// Manifests and the metadata of parts from arbitrary bytes: what is accepted is written back the
// same, and its elements can be copied between any two accepted parts without leaving either.
#include <string>
#include <vector>

#include "base/check.h"
#include "checkpoint/manifest.h"
#include "checkpoint/part_metadata.h"
#include "tests/fuzz/fuzz.h"

namespace {

constexpr int64_t kMost = 4096;  // elements to copy

// A part of the same tensor, flat, cut in the middle.
osler::TensorPart Half(const osler::TensorPart& part) {
  osler::TensorPart half = osler::WholeTensor(part.shape);
  half.begin = half.count / 3;
  half.count -= half.begin;
  return half;
}

void CopyBothWays(const osler::TensorPart& part) {
  const osler::TensorPart whole = osler::WholeTensor(part.shape), half = Half(part);
  if (whole.count > kMost) return;
  std::vector<char> a(static_cast<size_t>(part.count)), b(static_cast<size_t>(half.count)),
      c(static_cast<size_t>(whole.count));
  OSLER_CHECK(CopyOverlap(part, a.data(), whole, c.data(), 1) == part.count);
  const int64_t there = CopyOverlap(part, a.data(), half, b.data(), 1);
  const int64_t back = CopyOverlap(half, b.data(), part, a.data(), 1);
  OSLER_CHECK(there == back && there <= part.count);
  OSLER_CHECK(Overlap(part, half) == (there > 0));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  if (const auto part = osler::ParsePart(bytes); part.ok()) {
    const auto again = osler::ParsePart(osler::FormatPart(*part));
    OSLER_CHECK(again.ok() && *again == *part);
    CopyBothWays(*part);
  }
  if (const auto manifest = osler::ParseManifest(bytes); manifest.ok()) {
    OSLER_CHECK(osler::ParseManifest(osler::FormatManifest(*manifest)).ok());
  }
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  osler::Manifest manifest{3, {{"weights.rank0.safetensors", 10, 7, 2}, {"state.json", 4, 9}}};
  return {R"({"shape":[8,4],"dim":1,"slice":[2,2],"range":[0,16]})",
          R"({"shape":[3,5,2],"dim":0,"slice":[1,2],"range":[7,9]})",
          R"({"shape":[7],"dim":0,"slice":[0,7],"range":[7,0]})",
          R"({"shape":[2,0,3],"dim":2,"slice":[1,1],"range":[0,0]})",
          osler::FormatManifest(manifest)};
}
