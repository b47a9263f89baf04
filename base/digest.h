// Checksums and digests: CRC-32C for damage (per part, verified on every read), SHA-256 for
// identity.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace osler {

// CRC-32C (Castagnoli, reflected, as in RFC 3720); `crc` continues an earlier call. Uses SSE4.2
// where present.
uint32_t Crc32c(std::string_view data, uint32_t crc = 0);

// The same by table, for CPUs without that instruction.
uint32_t Crc32cPortable(std::string_view data, uint32_t crc = 0);

// Incremental SHA-256 (FIPS 180-4). Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Update(std::string_view data);
  std::string Hex();  // 64 lower-case digits; ends the digest

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// SHA-256 of `data` as 64 lower-case hex digits.
std::string Sha256Hex(std::string_view data);

}  // namespace osler
