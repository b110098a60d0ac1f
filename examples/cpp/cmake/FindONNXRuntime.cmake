# Finds ONNX Runtime: the target onnxruntime::onnxruntime. Set these where it is not installed in a usual place:
#   ONNXRUNTIME_INCLUDE_DIR  folder of onnxruntime_cxx_api.h, of the release of the library or an older one
#   ONNXRUNTIME_LIBRARY      the shared library, e.g. onnxruntime/capi/libonnxruntime.so.* of the Python wheel
# If the library is under another name than the loader looks for, as in the wheel, ONNXRUNTIME_LINK is a link with the
# right name, to be installed.
set(shared_name ${CMAKE_SHARED_LIBRARY_PREFIX}onnxruntime${CMAKE_SHARED_LIBRARY_SUFFIX})
find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_cxx_api.h PATH_SUFFIXES onnxruntime onnxruntime/core/session)
find_library(ONNXRUNTIME_LIBRARY NAMES ${shared_name})

if(NOT ONNXRUNTIME_INCLUDE_DIR OR NOT ONNXRUNTIME_LIBRARY)
  find_package(onnxruntime CONFIG QUIET)  # static libraries, which need other ones
  if(TARGET onnxruntime::onnxruntime)
    set(ONNXRuntime_FOUND TRUE)
    return()
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(ONNXRuntime REQUIRED_VARS ONNXRUNTIME_LIBRARY ONNXRUNTIME_INCLUDE_DIR)
mark_as_advanced(ONNXRUNTIME_INCLUDE_DIR ONNXRUNTIME_LIBRARY)

if(ONNXRuntime_FOUND AND NOT TARGET onnxruntime::onnxruntime)
  set(location ${ONNXRUNTIME_LIBRARY})
  get_filename_component(folder ${ONNXRUNTIME_LIBRARY} DIRECTORY)
  get_filename_component(name ${ONNXRUNTIME_LIBRARY} NAME)
  # libonnxruntime.so.1.31.1 is loaded as libonnxruntime.so.1.
  string(REGEX REPLACE "(\\.so\\.[0-9]+).*" "\\1" loaded_name ${name})
  if(NOT EXISTS ${folder}/${loaded_name})
    set(ONNXRUNTIME_LINK ${CMAKE_CURRENT_BINARY_DIR}/runtime/${loaded_name})
    file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/runtime)
    file(CREATE_LINK ${ONNXRUNTIME_LIBRARY} ${ONNXRUNTIME_LINK} SYMBOLIC)
    set(location ${ONNXRUNTIME_LINK})
  endif()
  add_library(onnxruntime::onnxruntime SHARED IMPORTED)
  set_target_properties(onnxruntime::onnxruntime PROPERTIES
    IMPORTED_LOCATION ${location} INTERFACE_INCLUDE_DIRECTORIES ${ONNXRUNTIME_INCLUDE_DIR})
endif()
