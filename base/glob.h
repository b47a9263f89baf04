// Patterns over names, and how near a name comes to one.
#pragma once

#include <cstddef>
#include <string_view>

namespace osler {

// The fewest characters to insert, delete or replace until `text` matches `pattern`, in which `*`
// stands for any run of characters (none and dots included) and `?` for one. Without these it is
// Levenshtein's distance. Costs the product of the lengths. Thread-safe.
size_t GlobDistance(std::string_view pattern, std::string_view text);

// Whether the whole of `text` matches.
bool GlobMatches(std::string_view pattern, std::string_view text);

}  // namespace osler
