#include "pending.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "failure.h"

namespace py = pybind11;

namespace inside {
namespace {

constexpr double LONGEST = 1e11;  // milliseconds: three years, and no overflow
constexpr const char* CAPSULE = "specbeam.ending";

PyObject* call_ending(PyObject* capsule, PyObject*) {
  const auto* ending = static_cast<std::shared_ptr<Ending>*>(PyCapsule_GetPointer(capsule, CAPSULE));
  if (ending == nullptr) return nullptr;
  std::shared_ptr<Ending>(*ending)->end();
  Py_RETURN_NONE;
}

PyMethodDef ENDING = {"ended", call_ending, METH_O, nullptr};

void free_ending(PyObject* capsule) {
  delete static_cast<std::shared_ptr<Ending>*>(PyCapsule_GetPointer(capsule, CAPSULE));
}

}  // namespace

void Ending::end() {
  void (*call)(void*) = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    call = std::exchange(call_, nullptr);
  }
  over_.notify_all();
  if (call == nullptr) return;
  Released released;
  call(data_);
}

bool Ending::ended() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return ended_;
}

bool Ending::wait(double timeout_ms) const {
  std::unique_lock<std::mutex> lock(mutex_);
  if (timeout_ms < 0) {
    over_.wait(lock, [this] { return ended_; });
    return true;
  }
  const auto most = std::chrono::duration<double, std::milli>(std::min(timeout_ms, LONGEST));
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::nanoseconds>(most);
  return over_.wait_until(lock, until, [this] { return ended_; });
}

void Ending::notify(void (*call)(void*), void* data) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (noted_) {
      throw Failure{SPECBEAM_INVALID, "somebody is to be told already of this request's end; expected one call."};
    }
    noted_ = true;
    if (!ended_) {
      call_ = call;
      data_ = data;
      return;
    }
  }
  call(data);
}

py::object ending_call(std::shared_ptr<Ending> ending) {
  auto held = std::make_unique<std::shared_ptr<Ending>>(std::move(ending));
  auto capsule = py::reinterpret_steal<py::object>(PyCapsule_New(held.get(), CAPSULE, free_ending));
  if (!capsule) throw py::error_already_set();
  held.release();
  auto made = py::reinterpret_steal<py::object>(PyCFunction_New(&ENDING, capsule.ptr()));
  if (!made) throw py::error_already_set();
  return made;
}

}  // namespace inside

specbeam_result* specbeam_pending::result() {
  inside::Released released;  // whoever reads it may wait for the GIL
  std::lock_guard<std::mutex> lock(reading);
  if (!list) {
    inside::Acquired acquired;
    list = std::make_shared<const inside::List>(engine->python().attr("answer")(future.get()));
  }
  return new specbeam_result{list};
}
