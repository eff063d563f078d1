// How what goes wrong inside becomes a status and a text, and never an exception outside.
#pragma once

#include <string>

#include "specbeam.h"

namespace inside {

// What a function of the ABI says instead of a result.
struct Failure {
  specbeam_status status;
  std::string message;
};

// The calling thread's `specbeam_last_error`.
std::string& last_error() noexcept;

// Remembers the exception that is being handled, and returns its status. Call it in a catch block, without the GIL.
specbeam_status remembered() noexcept;

// Runs the body of a function of the ABI.
template <typename Body>
specbeam_status guarded(Body&& body) noexcept {
  try {
    body();
    return SPECBEAM_OK;
  } catch (...) {
    return remembered();
  }
}

}  // namespace inside
