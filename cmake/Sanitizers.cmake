# OSLER_SANITIZE: a comma list for -fsanitize ("address,undefined" or "thread"); set by the presets.
set(OSLER_SANITIZE "" CACHE STRING "sanitizers to build with")
if(OSLER_SANITIZE)
  add_compile_options(-fsanitize=${OSLER_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${OSLER_SANITIZE})
endif()
