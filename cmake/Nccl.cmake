# OSLER_NCCL: the NCCL back-end of parallel/. Needs the headers of NCCL and CUDA's run time, of a CUDA toolkit or of
# the torch wheel, and nothing at link time: the libraries are loaded when NCCL is asked for, the wheel's first.
set(OSLER_NCCL AUTO CACHE STRING "build the NCCL back-end: AUTO (where its headers are found), ON or OFF")
set_property(CACHE OSLER_NCCL PROPERTY STRINGS AUTO ON OFF)

cmake_path(GET OSLER_TORCH_DIR PARENT_PATH site_packages)
if(NOT OSLER_NCCL STREQUAL "OFF")
  find_path(OSLER_CUDA_INCLUDE cuda_runtime_api.h
            HINTS $ENV{CUDA_HOME}/include $ENV{CUDA_PATH}/include PATHS /usr/local/cuda/include)
  find_path(OSLER_NCCL_INCLUDE nccl.h HINTS ${site_packages}/nvidia/nccl/include ${OSLER_CUDA_INCLUDE})
endif()

add_library(osler_nccl INTERFACE)
add_library(osler::nccl ALIAS osler_nccl)
if(OSLER_CUDA_INCLUDE AND OSLER_NCCL_INCLUDE)
  set(OSLER_HAS_NCCL ON)
  target_include_directories(osler_nccl SYSTEM INTERFACE ${OSLER_CUDA_INCLUDE} ${OSLER_NCCL_INCLUDE})
  target_link_libraries(osler_nccl INTERFACE ${CMAKE_DL_LIBS})
  target_link_options(osler_nccl INTERFACE
    -Wl,-rpath,${site_packages}/nvidia/nccl/lib -Wl,-rpath,${site_packages}/nvidia/cu13/lib)
  file(STRINGS ${OSLER_NCCL_INCLUDE}/nccl.h version REGEX "define NCCL_(MAJOR|MINOR|PATCH) ")
  string(REGEX REPLACE "[^0-9;]" "" version "${version}")
  string(REPLACE ";" "." version "${version}")
  message(STATUS "Osler: NCCL on (${version}, ${OSLER_NCCL_INCLUDE}; CUDA headers of ${OSLER_CUDA_INCLUDE})")
else()
  set(OSLER_HAS_NCCL OFF)
  if(OSLER_NCCL STREQUAL "ON")
    message(FATAL_ERROR "OSLER_NCCL is ON, but cuda_runtime_api.h or nccl.h was not found: set CUDA_HOME")
  endif()
  message(STATUS "Osler: NCCL off (OSLER_NCCL=${OSLER_NCCL}, no CUDA toolkit with nccl.h in use)")
endif()
