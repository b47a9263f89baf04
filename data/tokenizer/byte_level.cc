#include "data/tokenizer/byte_level.h"

#include <array>

#include "data/tokenizer/unicode.h"

namespace osler {
namespace {

constexpr char32_t kFirstStandIn = 0x100;

constexpr bool IsVisible(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

struct Alphabet {
  std::array<char32_t, 256> characters{};
  std::array<int, kFirstStandIn + 256> bytes{};
};

constexpr Alphabet MakeAlphabet() {
  Alphabet made;
  for (int& byte : made.bytes) byte = -1;
  char32_t stand_in = kFirstStandIn;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t code = IsVisible(byte) ? static_cast<char32_t>(byte) : stand_in++;
    made.characters[static_cast<size_t>(byte)] = code;
    made.bytes[code] = byte;
  }
  return made;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

char32_t CharacterOfByte(uint8_t byte) { return kAlphabet.characters[byte]; }

int ByteOfCharacter(char32_t code) {
  return code < kAlphabet.bytes.size() ? kAlphabet.bytes[code] : -1;
}

bool SpellBytes(std::string_view token, std::string& bytes) {
  bytes.clear();
  for (size_t at = 0; at < token.size();) {
    const int byte = ByteOfCharacter(NextCodePoint(token, at));
    if (byte < 0) return false;
    bytes.push_back(static_cast<char>(byte));
  }
  return true;
}

}  // namespace osler
