#include "base/glob.h"

#include <algorithm>
#include <vector>

namespace osler {

// Levenshtein's table by rows: row[j] is the distance of the pattern so far to the first j
// characters.
size_t GlobDistance(std::string_view pattern, std::string_view text) {
  std::vector<size_t> row(text.size() + 1);
  for (size_t j = 0; j <= text.size(); ++j) row[j] = j;
  for (const char c : pattern) {
    if (c == '*') {
      for (size_t j = 1; j <= text.size(); ++j) row[j] = std::min(row[j], row[j - 1]);
      continue;
    }
    size_t diagonal = row[0]++;
    for (size_t j = 1; j <= text.size(); ++j) {
      const size_t replace = diagonal + (c == '?' || c == text[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replace, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[text.size()];
}

bool GlobMatches(std::string_view pattern, std::string_view text) {
  return GlobDistance(pattern, text) == 0;
}

}  // namespace osler
