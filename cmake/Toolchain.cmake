# Language level, warnings, ccache and the fastest linker at hand.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(OSLER_CCACHE ccache)
if(OSLER_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${OSLER_CCACHE})
endif()

# g++ 12 takes -fuse-ld=mold and =lld; either links a test in well under a second.
find_program(OSLER_MOLD mold)
find_program(OSLER_LLD ld.lld)
if(OSLER_MOLD)
  add_link_options(-fuse-ld=mold)
elseif(OSLER_LLD)
  add_link_options(-fuse-ld=lld)
endif()

# Only our own targets use this interface: warnings are errors there and nowhere else.
add_library(osler_warnings INTERFACE)
target_compile_options(osler_warnings INTERFACE -Wall -Wextra -Werror -Wno-unknown-pragmas)
