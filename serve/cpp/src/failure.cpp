#include "failure.h"

#include <pybind11/pybind11.h>

#include <new>
#include <utility>

#include "interpreter.h"

namespace py = pybind11;

namespace inside {
namespace {

// What Python says of its exceptions: `specbeam.serve.embedded.told`.
Failure told(py::error_already_set& error) {
  Acquired acquired;
  const auto said = interpreter().attr("told")(error.value()).cast<std::pair<int, std::string>>();
  return {static_cast<specbeam_status>(said.first), said.second};
}

Failure handled() {
  try {
    throw;
  } catch (const Failure& failure) {
    return failure;
  } catch (py::error_already_set& error) {
    return told(error);
  } catch (const std::bad_alloc&) {
    return {SPECBEAM_MEMORY, "there is not enough memory."};
  } catch (const std::exception& error) {
    return {SPECBEAM_INTERNAL, error.what()};
  }
}

}  // namespace

std::string& last_error() noexcept {
  thread_local std::string text;
  return text;
}

specbeam_status remembered() noexcept {
  try {
    Failure failure = handled();
    last_error() = std::move(failure.message);
    return failure.status;
  } catch (...) {  // there is no memory for the reason
    last_error().clear();
    return SPECBEAM_INTERNAL;
  }
}

}  // namespace inside
