# Makes llama.cpp's build smaller: half the time of llama-cpp-python's own.
#
# The Makefile names this file in CMAKE_PROJECT_INCLUDE, so CMake includes it after each project() command: that of
# llama-cpp-python, then that of the llama.cpp in it.

if(PROJECT_NAME STREQUAL "llama.cpp")
  # The library under llama.cpp's command-line programs, with its HTTP client: a third of the time. llama-cpp-python
  # builds it without loading it, and forces the cache entry on. An ordinary variable takes precedence over the entry.
  set(LLAMA_BUILD_COMMON OFF)
elseif(PROJECT_NAME STREQUAL "llama_cpp")
  # mtmd has a file for each kind of projector. Most of the time goes into reading the same headers for each of them.
  # llama.cpp joins the files of its own models in the same way.
  function(puna_join_mtmd_models)
    if(NOT TARGET mtmd)
      return()
    endif()
    get_target_property(folder mtmd SOURCE_DIR)
    get_target_property(sources mtmd SOURCES)
    list(FILTER sources EXCLUDE REGEX "^models/")
    list(TRANSFORM sources PREPEND "${folder}/")
    set_source_files_properties(${sources} TARGET_DIRECTORY mtmd PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    set_target_properties(mtmd PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 12)
  endfunction()
  cmake_language(DEFER CALL puna_join_mtmd_models)
endif()
