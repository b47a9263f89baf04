#include "base/digest.h"

#include <gtest/gtest.h>

#include <string>

#include "base/philox.h"

namespace osler {
namespace {

std::string RandomBytes(uint64_t seed, size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(PhiloxBits(seed, i));
  return bytes;
}

TEST(Crc32cTest, KnownAnswers) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string up;
  for (char c = 0; c < 32; ++c) up += c;
  EXPECT_EQ(Crc32c(up), 0x46dd794eu);
  EXPECT_EQ(Crc32cPortable(up), 0x46dd794eu);
}

TEST(Crc32cTest, TheInstructionAndTheTableAgree) {
  for (uint64_t i = 0; i < 300; ++i) {
    const size_t size = i < 64 ? i : PhiloxBits(1, i) % 5000;
    const std::string bytes = RandomBytes(i, size + 8);
    const std::string_view part = std::string_view(bytes).substr(i % 8, size);  // any alignment
    ASSERT_EQ(Crc32c(part), Crc32cPortable(part)) << size;
    ASSERT_EQ(Crc32c(part, 0x12345678), Crc32cPortable(part, 0x12345678)) << size;
  }
}

TEST(Crc32cTest, ContinuesAnEarlierCall) {
  const std::string bytes = RandomBytes(3, 1000);
  for (const size_t cut : {0, 1, 7, 8, 9, 500, 999, 1000}) {
    EXPECT_EQ(
        Crc32c(std::string_view(bytes).substr(cut), Crc32c(std::string_view(bytes).substr(0, cut))),
        Crc32c(bytes));
  }
}

TEST(Crc32cTest, SeesEveryFlippedBit) {
  std::string bytes = RandomBytes(4, 100);
  const uint32_t good = Crc32c(bytes);
  for (size_t bit = 0; bit < 800; ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    EXPECT_NE(Crc32c(bytes), good);
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  }
}

TEST(Sha256Test, KnownAnswers) {  // FIPS 180-4 examples
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, PiecesMakeTheSameDigest) {
  const std::string bytes = RandomBytes(5, 1000);
  Sha256 digest;
  for (size_t at = 0; at < bytes.size(); at += 37)
    digest.Update(std::string_view(bytes).substr(at, 37));
  EXPECT_EQ(digest.Hex(), Sha256Hex(bytes));
}

}  // namespace
}  // namespace osler
