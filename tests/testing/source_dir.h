// The root of the source tree: __FILE__ may be relative to the build directory (ccache makes it
// so).
#pragma once

#include <string>

namespace osler::testing {

std::string SourceDir();

}  // namespace osler::testing
