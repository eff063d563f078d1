#include "engine.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "failure.h"

namespace py = pybind11;

namespace inside {
namespace {

std::mutex open_mutex;
std::vector<std::weak_ptr<Engine>> open_engines;

// Threads of Python and of engines must not outlive what the end of the process takes from them.
void close_all() {
  std::vector<std::weak_ptr<Engine>> left;
  {
    std::lock_guard<std::mutex> lock(open_mutex);
    left.swap(open_engines);
  }
  for (const std::weak_ptr<Engine>& one : left) {
    const std::shared_ptr<Engine> engine = one.lock();
    if (engine && engine->here() && Py_IsInitialized()) guarded([&engine] { engine->close(false); });
  }
}

}  // namespace

std::shared_ptr<Engine> Engine::open(const char* path, const char* settings) {
  std::shared_ptr<Engine> engine;
  {
    Acquired acquired;
    engine.reset(new Engine(path, settings));
  }
  static const int registered = std::atexit(close_all);
  (void)registered;
  std::lock_guard<std::mutex> lock(open_mutex);
  const auto gone = [](const std::weak_ptr<Engine>& one) { return one.expired(); };
  open_engines.erase(std::remove_if(open_engines.begin(), open_engines.end(), gone), open_engines.end());
  open_engines.push_back(engine);
  return engine;
}

Engine::Engine(const char* path, const char* settings) : process_(getpid()) {
  py::object python = interpreter().attr("Embedded")(text(path, "the path"), text(settings, "the settings"));
  item_ids_ = Reference(python.attr("item_ids"));
  python_ = Reference(std::move(python));
}

bool Engine::here() const noexcept { return process_ == getpid(); }

void Engine::check_here() const {
  if (here()) return;
  throw Failure{SPECBEAM_INVALID, "this engine was opened by process " + std::to_string(process_) +
                                      ", of which this one is a fork: its threads are not here. Fork first, and open "
                                      "bundles then."};
}

std::size_t Engine::items() const { return static_cast<std::size_t>(PyTuple_GET_SIZE(item_ids_.get().ptr())); }

const char* Engine::item(std::int64_t place) const {
  if (place < 0 || static_cast<std::size_t>(place) >= items() || !here()) return nullptr;
  Acquired acquired;  // text that is not ASCII is encoded when it is first asked for
  const char* found = PyUnicode_AsUTF8(PyTuple_GET_ITEM(item_ids_.get().ptr(), place));
  if (found == nullptr) PyErr_Clear();
  return found;
}

void Engine::close(bool drain) {
  Acquired acquired;
  python().attr("close")(drain);  // it lets go of the GIL while it waits
}

py::str text(const char* bytes, const char* what, std::size_t place) {
  const auto refused = [&](const char* why) {
    const std::string at = place == WHOLE ? "" : "[" + std::to_string(place) + "]";
    return Failure{SPECBEAM_INVALID, what + at + why};
  };
  if (bytes == nullptr) throw refused(" is NULL, expected a text.");
  const auto length = static_cast<Py_ssize_t>(std::char_traits<char>::length(bytes));
  PyObject* made = PyUnicode_DecodeUTF8(bytes, length, "strict");
  if (made == nullptr) {
    PyErr_Clear();
    throw refused(" is not UTF-8.");
  }
  return py::reinterpret_steal<py::str>(made);
}

py::list texts(const char* const* bytes, std::size_t count, const char* what) {
  if (bytes == nullptr && count != 0) {
    throw Failure{SPECBEAM_INVALID, std::string(what) + " is NULL, expected " + std::to_string(count) + " texts."};
  }
  py::list made;
  for (std::size_t i = 0; i < count; ++i) made.append(text(bytes[i], what, i));
  return made;
}

}  // namespace inside
