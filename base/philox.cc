#include "base/philox.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace osler {
namespace {

constexpr uint32_t kMul0 = 0xD2511F53, kMul1 = 0xCD9E8D57;    // the paper's multipliers
constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;  // and key schedule
constexpr double kUnit = 0x1.0p-53;

Philox4 Block(uint64_t key, uint64_t index, uint64_t stream) {
  return Philox(key, {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                      static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)});
}

uint64_t Low64(const Philox4& x) { return x[0] | static_cast<uint64_t>(x[1]) << 32; }
uint64_t High64(const Philox4& x) { return x[2] | static_cast<uint64_t>(x[3]) << 32; }

}  // namespace

Philox4 Philox(uint64_t key, const Philox4& counter) {
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  Philox4 x = counter;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kMul0) * x[0];
    const uint64_t p1 = static_cast<uint64_t>(kMul1) * x[2];
    x = {static_cast<uint32_t>(p1 >> 32) ^ x[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ x[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return x;
}

uint64_t PhiloxKey(uint64_t seed, std::string_view channel) {
  uint64_t hash =
      0xcbf29ce484222325ULL;  // FNV-1a over the name, then one Philox block to spread it
  for (const char c : channel) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return Low64(Block(seed, hash, channel.size()));
}

uint64_t PhiloxBits(uint64_t key, uint64_t index, uint64_t stream) {
  return Low64(Block(key, index, stream));
}

double PhiloxUniform(uint64_t key, uint64_t index, uint64_t stream) {
  return static_cast<double>(PhiloxBits(key, index, stream) >> 11) * kUnit;
}

double PhiloxNormal(uint64_t key, uint64_t index, uint64_t stream) {
  const Philox4 x = Block(key, index, stream);
  const double u = (static_cast<double>(Low64(x) >> 11) + 0.5) * kUnit;  // in (0, 1): log is finite
  const double v = static_cast<double>(High64(x) >> 11) * kUnit;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

uint64_t PermuteIndex(uint64_t key, uint64_t index, uint64_t size) {
  OSLER_CHECK(index < size);
  if (size == 1) return 0;
  const int half = (std::bit_width(size - 1) + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  do {  // the network permutes [0, 4^half); walk until the value falls inside [0, size)
    uint64_t left = index >> half, right = index & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t next = left ^ (PhiloxBits(key, right, round) & mask);
      left = right;
      right = next;
    }
    index = left << half | right;
  } while (index >= size);
  return index;
}

}  // namespace osler
