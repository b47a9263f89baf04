// An outside file that is only in memory, for fuzz targets of row readers.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "data/sources/text_file.h"

namespace osler {

class MemoryFile : public MappedFile {
 public:
  explicit MemoryFile(std::string bytes) : bytes_(std::move(bytes)) {}
  std::string_view data() const override { return bytes_; }

 private:
  const std::string bytes_;
};

inline TextFile InMemory(std::string bytes) {
  TextFile file{"fuzz", std::make_shared<MemoryFile>(std::move(bytes)), {}};
  file.text = file.map->data();
  return file;
}

}  // namespace osler
