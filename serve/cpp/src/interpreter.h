// The interpreter of this process, and who holds its lock.
#pragma once

#include <pybind11/pybind11.h>

namespace inside {

// Starts Python, unless it runs, and imports the package. python: as `specbeam_options` has it. Throws `Failure`.
void start(const char* python);

// The module `specbeam.serve.embedded`; the GIL is held, and `start` has returned.
pybind11::handle interpreter();

// Holds the GIL, whoever has it now.
using Acquired = pybind11::gil_scoped_acquire;

// Holds it not, even if this thread's caller does: for as long as something is waited for.
class Released {
 public:
  Released() : state_(Py_IsInitialized() && PyGILState_Check() ? PyEval_SaveThread() : nullptr) {}
  ~Released() {
    if (state_ != nullptr) PyEval_RestoreThread(state_);
  }
  Released(const Released&) = delete;
  Released& operator=(const Released&) = delete;

 private:
  PyThreadState* state_;
};

// A Python object that is let go by any thread, with or without the GIL.
class Reference {
 public:
  Reference() = default;
  explicit Reference(pybind11::object object) : object_(object.release().ptr()) {}
  Reference(Reference&& other) noexcept : object_(other.object_) { other.object_ = nullptr; }
  Reference& operator=(Reference&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Reference() { reset(); }
  void reset() noexcept {
    if (object_ == nullptr || !Py_IsInitialized()) return;
    Acquired acquired;
    Py_DECREF(object_);
    object_ = nullptr;
  }
  pybind11::handle get() const { return object_; }

 private:
  PyObject* object_ = nullptr;
};

}  // namespace inside
