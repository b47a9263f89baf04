# LibTorch from the PyPI wheel in .venv, imported by hand: find_package(Torch) demands a CUDA toolkit.
# The wheel ships headers of protobuf 3.13 and fmt 12; a directory that links to Debian's goes on the include path
# with plain -I, before the wheel's -isystem, so that Debian's headers and libraries match.
file(GLOB torch_dirs ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
list(LENGTH torch_dirs found)
if(NOT OSLER_TORCH_DIR AND NOT found EQUAL 1)
  message(FATAL_ERROR "LibTorch is not in .venv: run scripts/setup.sh, or pass -DOSLER_TORCH_DIR=…/torch")
endif()
set(OSLER_TORCH_DIR ${torch_dirs} CACHE PATH "the torch package that holds include/ and lib/")

set(shim ${CMAKE_BINARY_DIR}/first)
file(MAKE_DIRECTORY ${shim})
foreach(library google fmt)
  file(CREATE_LINK /usr/include/${library} ${shim}/${library} SYMBOLIC)
endforeach()

add_library(osler_torch INTERFACE)
target_include_directories(osler_torch INTERFACE ${shim})
target_include_directories(osler_torch SYSTEM INTERFACE
  ${OSLER_TORCH_DIR}/include ${OSLER_TORCH_DIR}/include/torch/csrc/api/include)
target_link_libraries(osler_torch INTERFACE
  ${OSLER_TORCH_DIR}/lib/libtorch_cpu.so ${OSLER_TORCH_DIR}/lib/libc10.so
  ${OSLER_TORCH_DIR}/lib/libgomp.so.1)  # one OpenMP runtime, and pool of threads, for torch and us
target_link_options(osler_torch INTERFACE -Wl,-rpath,${OSLER_TORCH_DIR}/lib)
add_library(osler::torch ALIAS osler_torch)
