#include "tests/testing/temp_dir.h"

#include <cstdlib>
#include <filesystem>

#include "base/check.h"
#include "base/fs.h"

namespace osler::testing {

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "osler_test_XXXXXX").string();
  OSLER_CHECK(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TempDir::File(std::string_view name) const { return JoinPath(path_, name); }

}  // namespace osler::testing
