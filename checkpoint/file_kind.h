// What kind of thing a path is. Only the directory entry is looked at, nothing is read: base/fs has
// no such question, and opening a FIFO or a device to find out would block or act.
#pragma once

#include <string>

namespace osler {

// A regular file, or a symbolic link to one (model caches keep their files behind links).
bool IsRegularFile(const std::string& path);
// A regular file itself: no link, so that it lies in the directory that names it.
bool IsPlainFile(const std::string& path);
// Absolute, with links resolved as far as the path exists and without a trailing slash.
std::string CanonicalPath(const std::string& path);

}  // namespace osler
