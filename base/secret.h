// Keyed digests and random bytes for processes that prove to each other that they share a secret.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace osler {

// HMAC-SHA256 (RFC 2104, FIPS 198-1) of `data`: 32 bytes. Any key, also an empty one. Thread-safe.
std::string HmacSha256(std::string_view key, std::string_view data);

// Takes as long for a wrong first byte as for a wrong last one.
bool EqualInConstantTime(std::string_view a, std::string_view b);

// `count` unpredictable bytes from the system's generator.
std::string RandomBytes(size_t count);

}  // namespace osler
