// A fresh directory that disappears with the object.
#pragma once

#include <string>
#include <string_view>

namespace osler::testing {

class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string File(std::string_view name) const;  // path() + "/" + name

 private:
  std::string path_;
};

}  // namespace osler::testing
