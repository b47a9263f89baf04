#include "data/record.h"

#include "absl/strings/str_cat.h"

namespace osler {

std::string PlaceOf(const Origin& origin) {
  std::string place = absl::StrCat(origin.file, ":", origin.line);
  if (origin.record > 0) absl::StrAppend(&place, ": record ", origin.record);
  return place;
}

}  // namespace osler
