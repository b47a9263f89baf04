// The version of the program; a test compares it with CMakeLists.txt.
#pragma once

namespace osler {

inline constexpr char kOslerVersion[] = "0.1.0";

}  // namespace osler
