// Word lists for names. All words are folded (lower case, no accents).
#pragma once

#include <string_view>

namespace osler {

// "dr", "mrs", "jr", "md": part of a written name, but no name.
bool IsNameTitle(std::string_view word);
// "van", "de", "bin": part of a name that says nothing alone.
bool IsNameParticle(std::string_view word);
// English words that are also names ("will", "may", "grant"): alone they count only with a capital.
bool IsCommonWord(std::string_view word);

}  // namespace osler
