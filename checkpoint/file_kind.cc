#include "checkpoint/file_kind.h"

#include <filesystem>
#include <system_error>

namespace osler {

namespace stdfs = std::filesystem;

bool IsRegularFile(const std::string& path) {
  std::error_code ignored;
  return stdfs::is_regular_file(stdfs::status(path, ignored));
}

bool IsPlainFile(const std::string& path) {
  std::error_code ignored;
  return stdfs::is_regular_file(stdfs::symlink_status(path, ignored));
}

std::string CanonicalPath(const std::string& path) {
  std::error_code error;
  const stdfs::path absolute = stdfs::absolute(path, error);
  stdfs::path canonical = stdfs::weakly_canonical(absolute, error);
  if (error) canonical = absolute.lexically_normal();
  if (!canonical.has_filename() && canonical.has_parent_path()) canonical = canonical.parent_path();
  return canonical.string();
}

}  // namespace osler
