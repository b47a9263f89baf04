// The byte alphabet of GPT-2's byte-level BPE: each of the 256 bytes written as one visible
// character (Radford et al., "Language Models are Unsupervised Multitask Learners", the published
// encoder's bytes_to_unicode).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace osler {

// Printable bytes of Latin-1 stand for themselves, the others for U+0100, U+0101, … in order.
char32_t CharacterOfByte(uint8_t byte);
// The byte of a character, or -1 if it is not in the alphabet.
int ByteOfCharacter(char32_t code);
// What `token`, valid UTF-8, spells. False, and `bytes` unspecified, if a character of it is not in
// the alphabet.
bool SpellBytes(std::string_view token, std::string& bytes);

}  // namespace osler
