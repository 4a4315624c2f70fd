# drupe_room(NAME nn DEPS core hf SOURCES a.c b.c LIBS dep_x): one room as an object library.
# Without SOURCES: every *.c of the folder; MORE: sources from elsewhere beside them.
# DEPS are the rooms that it may call; tools/check/layers holds #includes to the same list.
function(drupe_room)
  cmake_parse_arguments(R "" "NAME" "DEPS;SOURCES;MORE;LIBS" ${ARGN})
  if(NOT R_SOURCES)
    file(GLOB R_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
  endif()
  list(APPEND R_SOURCES ${R_MORE})
  add_library(room_${R_NAME} OBJECT ${R_SOURCES})
  # core's headers are open to every room, and core/json.h has jansson's.
  target_link_libraries(room_${R_NAME} PRIVATE drupe_flags dep_jansson)
  target_link_libraries(room_${R_NAME} PUBLIC ${R_LIBS} Threads::Threads m ${CMAKE_DL_LIBS})
  add_library(drupe_${R_NAME} STATIC $<TARGET_OBJECTS:room_${R_NAME}>)
  target_link_libraries(drupe_${R_NAME} PUBLIC drupe_flags)
  foreach(dep ${R_DEPS})
    target_link_libraries(drupe_${R_NAME} PUBLIC drupe_${dep})
  endforeach()
  target_link_libraries(drupe_${R_NAME} PUBLIC ${R_LIBS} Threads::Threads m ${CMAKE_DL_LIBS})
endfunction()

# drupe_test(NAME json_test ROOM core SOURCES json_test.c [LIBS drupe_nn] [LABELS slow]): a
# program that ends in `N passed, N failed[, N skipped]` and exits 0 only when none failed.
function(drupe_test)
  cmake_parse_arguments(T "" "NAME;ROOM" "SOURCES;LIBS;LABELS;ENVIRONMENT" ${ARGN})
  add_executable(${T_NAME} ${T_SOURCES})
  target_link_libraries(${T_NAME} PRIVATE drupe_flags drupe_${T_ROOM} ${T_LIBS})
  target_include_directories(${T_NAME} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_compile_definitions(${T_NAME} PRIVATE
    DRUPE_SOURCE_DIR="${CMAKE_SOURCE_DIR}" DRUPE_BINARY_DIR="${CMAKE_BINARY_DIR}")
  add_test(NAME ${T_ROOM}/${T_NAME} COMMAND ${T_NAME} WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
  set_tests_properties(${T_ROOM}/${T_NAME} PROPERTIES TIMEOUT 900
    LABELS "${T_ROOM};${T_LABELS}" ENVIRONMENT "${T_ENVIRONMENT}")
endfunction()

# drupe_tests(ROOM core [EXCEPT a_test.c] [INCLUDES dir]): a drupe_test for each *_test.c of
# the folder; INCLUDES: folders of generated headers.
function(drupe_tests)
  cmake_parse_arguments(T "" "ROOM" "EXCEPT;INCLUDES" ${ARGN})
  file(GLOB tests RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} CONFIGURE_DEPENDS
    ${CMAKE_CURRENT_SOURCE_DIR}/*_test.c)
  foreach(source ${tests})
    if(NOT source IN_LIST T_EXCEPT)
      string(REGEX REPLACE "\\.c$" "" test ${source})
      drupe_test(NAME ${test} ROOM ${T_ROOM} SOURCES ${source})
      target_include_directories(${test} SYSTEM PRIVATE ${T_INCLUDES})
    endif()
  endforeach()
endfunction()
