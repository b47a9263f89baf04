#include "data/tokenizer/mapped_text.h"

#include "data/tokenizer/unicode.h"

namespace osler {

MappedText MappedText::Slice(size_t begin, size_t end) const {
  MappedText slice;
  slice.text = text.substr(begin, end - begin);
  if (origin.empty()) {
    slice.base = base + static_cast<uint32_t>(begin);
  } else {
    slice.origin.assign(origin.begin() + static_cast<ptrdiff_t>(begin),
                        origin.begin() + static_cast<ptrdiff_t>(end));
  }
  return slice;
}

void MappedText::Append(std::string_view bytes, uint32_t from) {
  text.append(bytes);
  origin.insert(origin.end(), bytes.size(), from);
}

void MappedText::AppendFrom(const MappedText& source, size_t begin, size_t end) {
  text.append(source.text, begin, end - begin);
  for (size_t at = begin; at < end; ++at) origin.push_back(source.OriginOf(at));
}

MappedText ToMappedText(std::string_view input) {
  MappedText out;
  if (IsUtf8(input)) {
    out.text = std::string(input);
    return out;
  }
  for (size_t at = 0; at < input.size();) {
    const uint32_t from = static_cast<uint32_t>(at);
    size_t skip = 0;
    const size_t length = Utf8Length(input, at, &skip);
    if (length == 0) {
      out.Append("\xEF\xBF\xBD", from);
      at += skip;
      continue;
    }
    for (size_t i = 0; i < length; ++i) out.Append(input.substr(at + i, 1), from + i);
    at += length;
  }
  return out;
}

}  // namespace osler
