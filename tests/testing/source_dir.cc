#include "tests/testing/source_dir.h"

namespace osler::testing {

std::string SourceDir() { return OSLER_SOURCE_DIR; }

}  // namespace osler::testing
