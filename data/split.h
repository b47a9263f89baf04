// Which subjects are held out for validation.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_set>

namespace osler {

// round(share × subjects) of them, at least one of two or more when share > 0 and never all, in the
// order of a keyed hash: a pure function of (the set of subjects, share, seed), whatever the order
// of the records.
std::unordered_set<std::string> HeldOutSubjects(const std::unordered_set<std::string>& subjects,
                                                double share, uint64_t seed);

}  // namespace osler
